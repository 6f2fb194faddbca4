/* tokenizer.model: SentencePiece's ModelProto (github.com/google/sentencepiece, sentencepiece_model.proto), by hand:
 * four messages of plain fields do not need a protobuf library. */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/status.h"
#include "model/hf_internal.h"

struct bytes {
    const uint8_t *at, *end;
};

/* One field of a message. */
struct field {
    uint32_t number, wire;
    uint64_t value;      /* wire types 0, 1 and 5 */
    struct bytes inside; /* wire type 2 */
};

static bool read_varint(struct bytes *b, uint64_t *out) {
    *out = 0;
    for (int shift = 0; shift < 64 && b->at < b->end; shift += 7) {
        const uint8_t byte = *b->at++;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return true;
        }
    }
    return false;
}

static bool read_fixed(struct bytes *b, size_t size, uint64_t *out) {
    *out = 0;
    if ((size_t)(b->end - b->at) < size) {
        return false;
    }
    memcpy(out, b->at, size); /* little-endian hosts only, see gguf.c */
    b->at += size;
    return true;
}

/* False for a malformed field. */
static bool next_field(struct bytes *b, struct field *f) {
    uint64_t tag = 0, size = 0;
    if (!read_varint(b, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX) {
        return false;
    }
    *f = (struct field){.number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7)};
    switch (f->wire) {
    case 0: return read_varint(b, &f->value);
    case 1: return read_fixed(b, 8, &f->value);
    case 5: return read_fixed(b, 4, &f->value);
    case 2:
        if (!read_varint(b, &size) || size > (uint64_t)(b->end - b->at)) {
            return false;
        }
        f->inside = (struct bytes){b->at, b->at + size};
        b->at += size;
        return true;
    default: return false;
    }
}

struct model {
    const char *label;
    struct hf_vocab *v;
    candid_error *error;
};

static candid_status broken(const struct model *m, const char *where) {
    return fail(m->error, CANDID_ERROR_FORMAT, "%s: expected a SentencePiece model, found a malformed %s", m->label,
                where);
}

/* SentencePiece { string piece = 1; float score = 2; Type type = 3 } */
static candid_status read_piece(const struct model *m, struct bytes b) {
    struct bytes text = {0};
    float score = 0;
    int32_t type = HF_NORMAL;
    while (b.at < b.end) {
        struct field f;
        if (!next_field(&b, &f)) {
            return broken(m, "piece");
        }
        if (f.number == 1 && f.wire == 2) {
            text = f.inside;
        } else if (f.number == 2 && f.wire == 5) {
            const uint32_t bits = (uint32_t)f.value;
            memcpy(&score, &bits, sizeof score);
        } else if (f.number == 3 && f.wire == 0) {
            if (f.value < HF_NORMAL || f.value > HF_BYTE) {
                return broken(m, "piece type");
            }
            type = (int32_t)f.value;
        }
    }
    return hf_vocab_set(m->v, (int64_t)m->v->count, (const char *)text.at, (size_t)(text.end - text.at), score, type,
                        m->label, m->error);
}

/* TrainerSpec: model_type = 3 (2: BPE), unk_id = 40, bos_id = 41, eos_id = 42 */
static candid_status read_trainer(const struct model *m, struct bytes b) {
    uint64_t model_type = 1;
    m->v->unknown = 0;
    m->v->bos = 1;
    m->v->eos = 2;
    while (b.at < b.end) {
        struct field f;
        if (!next_field(&b, &f)) {
            return broken(m, "trainer specification");
        }
        const int64_t id = (int32_t)(uint32_t)f.value; /* -1 is stored in ten bytes */
        if (f.wire == 0) {
            model_type = f.number == 3 ? f.value : model_type;
            m->v->unknown = f.number == 40 ? id : m->v->unknown;
            m->v->bos = f.number == 41 ? id : m->v->bos;
            m->v->eos = f.number == 42 ? id : m->v->eos;
        }
    }
    return model_type == 2 ? CANDID_OK
                           : fail(m->error, CANDID_ERROR_UNSUPPORTED,
                                  "%s: expected a SentencePiece model of type BPE (2), found type %llu", m->label,
                                  (unsigned long long)model_type);
}

/* NormalizerSpec: precompiled_charsmap = 2, add_dummy_prefix = 3, remove_extra_whitespaces = 4,
 * escape_whitespaces = 5; the last three are true when absent. */
static candid_status read_normalizer(const struct model *m, struct bytes b) {
    bool dummy = true, squeeze = true, escape = true, mapped = false;
    while (b.at < b.end) {
        struct field f;
        if (!next_field(&b, &f)) {
            return broken(m, "normaliser specification");
        }
        mapped |= f.number == 2 && f.wire == 2 && f.inside.end > f.inside.at;
        dummy = f.number == 3 ? f.value != 0 : dummy;
        squeeze = f.number == 4 ? f.value != 0 : squeeze;
        escape = f.number == 5 ? f.value != 0 : escape;
    }
    if (mapped || squeeze || !escape) {
        return fail(m->error, CANDID_ERROR_UNSUPPORTED,
                    "%s: expected a SentencePiece model that leaves text as it is, found one that %s", m->label,
                    mapped    ? "normalises characters"
                    : squeeze ? "removes extra spaces"
                              : "does not escape spaces");
    }
    m->v->add_space_prefix = dummy;
    return CANDID_OK;
}

/* ModelProto { repeated SentencePiece pieces = 1; TrainerSpec trainer_spec = 2; NormalizerSpec normalizer_spec = 3 } */
static candid_status read_model(const struct model *m, struct bytes b) {
    bool has_trainer = false, has_normalizer = false;
    while (b.at < b.end) {
        struct field f;
        if (!next_field(&b, &f)) {
            return broken(m, "field");
        }
        if (f.wire != 2) {
            continue;
        }
        if (f.number == 1) {
            TRY(read_piece(m, f.inside));
        } else if (f.number == 2) {
            TRY(read_trainer(m, f.inside));
            has_trainer = true;
        } else if (f.number == 3) {
            TRY(read_normalizer(m, f.inside));
            has_normalizer = true;
        }
    }
    if (m->v->count == 0 || !has_trainer || !has_normalizer) {
        return broken(m, m->v->count == 0 ? "file (no pieces)" : "file (no trainer or normaliser specification)");
    }
    return CANDID_OK;
}

candid_status hf_parse_sentencepiece(const uint8_t *data, size_t size, const char *label, struct hf_vocab *v,
                                     candid_error *error) {
    const struct model m = {label, v, error};
    return read_model(&m, (struct bytes){data, data + size});
}

candid_status hf_read_sentencepiece(const char *path, struct hf_vocab *v, candid_error *error) {
    struct mapped_file file;
    TRY(file_map(path, "a SentencePiece model", &file, error));
    char label[208];
    file_label(path, label, sizeof label);
    const candid_status status = hf_parse_sentencepiece(file.data, file.size, label, v, error);
    file_unmap(&file);
    return status;
}
