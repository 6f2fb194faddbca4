# What a header declares, one name a line: "FUNCTION name", "FIELD struct, field", "CONSTANT name", and with whole=1
# the functions' declarations.
{
    line = $0
    while (line != "") {
        i = index(line, inside ? "*/" : "/*")
        text = text (inside ? "" : i ? substr(line, 1, i - 1) : line)
        line = i ? substr(line, i + 2) : ""
        inside = i ? !inside : inside
    }
    text = text (/^#/ ? ";" : " ")
}

function struct(name, body,    parts, n, i) {
    n = split(body, parts, /[;,]/)
    for (i = 1; i <= n; i++) {
        sub(/\[.*/, "", parts[i])
        if (match(parts[i], /[A-Za-z_0-9]+ *$/)) {
            sub(/ *$/, "", parts[i])
            print "FIELD " name ", " substr(parts[i], match(parts[i], /[A-Za-z_0-9]+$/))
        }
    }
}

function enumeration(body,    parts, n, i) {
    n = split(body, parts, ",")
    for (i = 1; i <= n; i++) {
        if (match(parts[i], /CANDID_[A-Z_0-9]+/)) {
            print "CONSTANT " substr(parts[i], RSTART, RLENGTH)
        }
    }
}

END {
    rest = text
    while (match(rest, /typedef (struct|enum) [a-z_]+ \{[^}]*\}/)) {
        found = substr(rest, RSTART, RLENGTH - 1)
        rest = substr(rest, RSTART + RLENGTH)
        split(found, words, " ")
        body = substr(found, index(found, "{") + 1)
        if (words[2] == "struct") {
            struct(words[3], body)
        } else {
            enumeration(body)
        }
    }
    rest = text
    while (match(rest, /CANDID_API [^;]*candid_[^;]*;/)) {
        found = substr(rest, RSTART, RLENGTH)
        rest = substr(rest, RSTART + RLENGTH)
        if (whole) {
            gsub(/ +/, " ", found)
            print found
        } else {
            match(found, /candid_[a-z_]+\(/)
            print "FUNCTION " substr(found, RSTART, RLENGTH - 1)
        }
    }
}
