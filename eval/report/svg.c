/* Bars, points and curves. Every coordinate is written with one or two decimals, so that pages are reproducible. */
#include "eval/report/svg.h"

#include <math.h>
#include <string.h>

#include "eval/report/write.h"

#define WIDTH 480.0

struct svg_axis svg_axis(double low, double high, bool from_zero) {
    if (!(low <= high)) {
        low = 0.0;
        high = 1.0;
    }
    const double air = high > low ? 0.06 * (high - low) : fabs(high) * 0.1 + 0.5;
    low = from_zero ? 0.0 : low - air;
    high += air;
    const double rough = (high - low) / 5, power = pow(10, floor(log10(rough))), part = rough / power;
    struct svg_axis axis = {.low = low, .high = high};
    axis.step = power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
    axis.decimals = axis.step >= 1 ? 0 : (int)ceil(-log10(axis.step) - 1e-9);
    return axis;
}

static double place(const struct svg_axis *axis, double value, double from, double to) {
    return from + (value - axis->low) / (axis->high - axis->low) * (to - from);
}

#define MOST_TICKS 12

/* The k-th round number of the axis; no "-0". */
static double tick(const struct svg_axis *axis, int k) {
    const double v = (ceil(axis->low / axis->step - 1e-9) + k) * axis->step;
    return fabs(v) < axis->step * 1e-6 ? 0.0 : v;
}

/* About how wide the text is at `size` pixels. */
static double text_width(const char *text, double size) {
    size_t n = 0;
    for (; *text; text++) {
        n += ((unsigned char)*text & 0xC0) != 0x80;
    }
    return (double)n * size * 0.56;
}

static void open_chart(FILE *f, const char *title, const char *about, double height) {
    fputs("<figure class=chart><figcaption>", f);
    write_html(f, title);
    fprintf(f, "</figcaption><svg viewBox=\"0 0 %g %g\" role=\"img\"><title>", WIDTH, height);
    write_html(f, title);
    fputs("</title><desc>", f);
    write_html(f, about);
    fputs("</desc>", f);
}

static void write_label(FILE *f, double x, double y, const char *anchor, const char *class, const char *text) {
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y, anchor, class);
    write_html(f, text);
    fputs("</text>", f);
}

static void write_line(FILE *f, const char *class, double x1, double y1, double x2, double y2) {
    fprintf(f, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", class, x1, y1, x2, y2);
}

/* Grid lines and numbers of the x axis between left and right. */
static void write_x_axis(FILE *f, const struct svg_axis *axis, double left, double right, double top, double bottom) {
    for (int k = 0; k < MOST_TICKS; k++) {
        const double v = tick(axis, k);
        if (!(v <= axis->high)) {
            break;
        }
        const double x = place(axis, v, left, right);
        char number[40];
        snprintf(number, sizeof number, "%.*f", axis->decimals, v);
        write_line(f, "grid", x, top, x, bottom);
        write_label(f, x, bottom + 15, "middle", "tick", number);
    }
}

static void write_y_axis(FILE *f, const struct svg_axis *axis, double left, double right, double top, double bottom) {
    for (int k = 0; k < MOST_TICKS; k++) {
        const double v = tick(axis, k);
        if (!(v <= axis->high)) {
            break;
        }
        const double y = place(axis, v, bottom, top);
        char number[40];
        snprintf(number, sizeof number, "%.*f", axis->decimals, v);
        write_line(f, "grid", left, y, right, y);
        write_label(f, left - 7, y + 4, "end", "tick", number);
    }
}

/* ---- bars ---------------------------------------------------------------------------------------- */

#define ROW 25.0

static void write_bar(FILE *f, const struct svg_bar *b, const struct svg_axis *axis, bool from_zero, double left,
                      double right, double y) {
    const double x = place(axis, b->value, left, right), middle = y + ROW / 2;
    fprintf(f, "<g class=\"m%d\"><title>", b->colour);
    write_html(f, b->label);
    fputs(": ", f);
    write_html(f, b->shown);
    fputs("</title>", f);
    if (from_zero) {
        fprintf(f, "<rect class=\"bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"3\"/>", left, y + 4,
                fmax(x - left, 0.5), ROW - 8);
    }
    if (!isnan(b->low)) {
        const double a = place(axis, b->low, left, right), z = place(axis, b->high, left, right);
        write_line(f, "whisker", a, middle, z, middle);
        write_line(f, "whisker", a, middle - 4, a, middle + 4);
        write_line(f, "whisker", z, middle - 4, z, middle + 4);
    }
    if (!from_zero) {
        fprintf(f, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"5.5\"/>", x, middle);
    }
    fputs("</g>", f);
}

void svg_write_bars(FILE *f, const struct svg_bars *chart) {
    double low = INFINITY, high = -INFINITY, label_width = 0, height = 12;
    for (size_t i = 0; i < chart->n; i++) {
        const struct svg_bar *b = &chart->bars[i];
        height += ROW;
        if (b->label) {
            low = fmin(low, fmin(b->value, b->low));
            high = fmax(high, fmax(b->value, b->high));
            label_width = fmax(label_width, text_width(b->label, 13));
        }
    }
    if (!isnan(chart->reference)) {
        low = fmin(low, chart->reference);
        high = fmax(high, chart->reference);
    }
    const bool from_zero = !(low > 0.6 * high) && low >= 0.0;
    const struct svg_axis axis = svg_axis(low, high, from_zero);
    const double left = fmin(label_width, 150) + 14, right = WIDTH - 62, top = 6, bottom = height - 6;
    open_chart(f, chart->title, chart->about, height + 34);
    write_x_axis(f, &axis, left, right, top, bottom);
    if (!isnan(chart->reference)) {
        const double x = place(&axis, chart->reference, left, right);
        write_line(f, "reference", x, top, x, bottom);
    }
    double y = top;
    for (size_t i = 0; i < chart->n; i++, y += ROW) {
        const struct svg_bar *b = &chart->bars[i];
        if (!b->label) {
            write_label(f, 4, y + ROW / 2 + 6, "start", "heading", b->heading);
            continue;
        }
        write_label(f, left - 9, y + ROW / 2 + 4.5, "end", "name", b->label);
        if (!isnan(b->value)) {
            write_bar(f, b, &axis, from_zero, left, right, y);
        }
        write_label(f, WIDTH - 4, y + ROW / 2 + 4.5, "end", "value", b->shown);
    }
    char unit[160];
    snprintf(unit, sizeof unit, "%s%s", chart->unit, from_zero ? "" : " (the axis does not begin at 0)");
    write_label(f, left, height + 27, "start", "axis", unit);
    fputs("</svg></figure>\n", f);
}

/* ---- points -------------------------------------------------------------------------------------- */

struct box {
    double x0, y0, x1, y1;
};

static double overlap(const struct box *a, const struct box *b) {
    const double w = fmin(a->x1, b->x1) - fmax(a->x0, b->x0), h = fmin(a->y1, b->y1) - fmax(a->y0, b->y0);
    return w > 0 && h > 0 ? w * h : 0;
}

#define MOST_LABELS 64

/* What labels should keep away from. */
struct obstacles {
    struct box box[4 * MOST_LABELS];
    size_t n;
};

static void add_obstacle(struct obstacles *o, struct box box) {
    if (o->n < sizeof o->box / sizeof *o->box) {
        o->box[o->n++] = box;
    }
}

/* Beside, above or below its point, where least is in the way. */
static void place_label(FILE *f, const char *text, double x, double y, int colour, const struct box *frame,
                        struct obstacles *taken) {
    const double w = text_width(text, 13), h = 13;
    const struct {
        double dx, dy;
    } tries[] = {{10, 4}, {-10 - w, 4}, {-w / 2, -11}, {-w / 2, 21}, {8, -8},        {-8 - w, -8},
                 {8, 17}, {-8 - w, 17}, {14, -20},     {14, 28},     {-14 - w, -20}, {-14 - w, 28}};
    struct box best = {0};
    double least = INFINITY;
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        const double at = x + tries[i].dx, base = y + tries[i].dy;
        const struct box box = {at, base - h + 2, at + w, base + 3};
        double cost = (double)i * 0.5;
        cost += 50 * (fmax(0, frame->x0 - box.x0) + fmax(0, box.x1 - frame->x1) + fmax(0, frame->y0 - box.y0) +
                      fmax(0, box.y1 - frame->y1));
        for (size_t k = 0; k < taken->n; k++) {
            cost += overlap(&box, &taken->box[k]);
        }
        if (cost < least) {
            least = cost;
            best = box;
        }
    }
    add_obstacle(taken, best);
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" class=\"label m%d\">", best.x0, best.y1 - 3, colour);
    write_html(f, text);
    fputs("</text>", f);
}

static bool is_shown(const struct svg_point *p) {
    return !isnan(p->x) && !isnan(p->y);
}

/* In a picture of its own, which cuts what lies outside of the frame. */
static void write_curves(FILE *f, const struct svg_scatter *chart, const struct svg_axis *x_axis,
                         const struct svg_axis *y_axis, const struct box *frame) {
    const double w = frame->x1 - frame->x0, h = frame->y1 - frame->y0;
    fprintf(f, "<svg x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\" viewBox=\"%g %g %g %g\">", frame->x0, frame->y0, w, h,
            frame->x0, frame->y0, w, h);
    for (size_t i = 0; i < chart->n; i++) {
        const struct svg_point *p = &chart->points[i];
        if (p->n_line < 2 || !is_shown(p)) {
            continue;
        }
        fprintf(f, "<path class=\"curve m%d\" d=\"M", p->colour);
        for (size_t k = 0; k < p->n_line; k++) {
            fprintf(f, "%s%.1f %.1f", k > 0 ? "L" : "", place(x_axis, p->line_x[k], frame->x0, frame->x1),
                    place(y_axis, p->line_y[k], frame->y1, frame->y0));
        }
        fputs("\"/>", f);
    }
    fputs("</svg>", f);
}

void svg_write_scatter(FILE *f, const struct svg_scatter *chart) {
    double x0 = INFINITY, x1 = -INFINITY, y0 = chart->zero_line ? 0 : INFINITY, y1 = chart->zero_line ? 0 : -INFINITY;
    for (size_t i = 0; i < chart->n; i++) {
        const struct svg_point *p = &chart->points[i];
        if (is_shown(p)) {
            x0 = fmin(x0, p->x);
            x1 = fmax(x1, p->x);
            y0 = fmin(y0, p->y);
            y1 = fmax(y1, p->y);
        }
    }
    const double air_x = 0.12 * (x1 - x0), air_y = 0.12 * (y1 - y0), height = 330;
    const struct svg_axis x_axis = svg_axis(x0 - air_x, x1 + air_x, false),
                          y_axis = svg_axis(y0 - air_y, y1 + air_y, false);
    const struct box frame = {52, 8, WIDTH - 10, height - 46};
    open_chart(f, chart->title, chart->about, height);
    write_x_axis(f, &x_axis, frame.x0, frame.x1, frame.y0, frame.y1);
    write_y_axis(f, &y_axis, frame.x0, frame.x1, frame.y0, frame.y1);
    if (chart->zero_line) {
        const double y = place(&y_axis, 0, frame.y1, frame.y0);
        write_line(f, "reference", frame.x0, y, frame.x1, y);
    }
    struct obstacles taken = {.n = 0};
    write_curves(f, chart, &x_axis, &y_axis, &frame);
    for (size_t i = 0; i < chart->n; i++) {
        const struct svg_point *p = &chart->points[i];
        if (is_shown(p)) {
            const double x = place(&x_axis, p->x, frame.x0, frame.x1), y = place(&y_axis, p->y, frame.y1, frame.y0);
            fprintf(f, "<circle class=\"dot m%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"6\"/>", p->colour, x, y);
            add_obstacle(&taken, (struct box){x - 7, y - 7, x + 7, y + 7});
        }
    }
    for (size_t i = 0; i < chart->n; i++) {
        const struct svg_point *p = &chart->points[i];
        if (is_shown(p)) {
            place_label(f, p->label, place(&x_axis, p->x, frame.x0, frame.x1), place(&y_axis, p->y, frame.y1, frame.y0),
                        p->colour, &frame, &taken);
        }
    }
    write_label(f, (frame.x0 + frame.x1) / 2, height - 10, "middle", "axis", chart->x_name);
    fprintf(f, "<text transform=\"translate(12 %.1f) rotate(-90)\" text-anchor=\"middle\" class=\"axis\">",
            (frame.y0 + frame.y1) / 2);
    write_html(f, chart->y_name);
    fputs("</text></svg>", f);
    if (chart->better) {
        fputs("<p class=quiet>", f);
        write_html(f, chart->better);
        fputs("</p>", f);
    }
    fputs("</figure>\n", f);
}
