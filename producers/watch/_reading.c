/* Read the tensors of one training step, each once: sums, squares, what is not finite, what is exactly zero.
 *
 * The first half of this file is plain C. It gets addresses and allocates nothing; sums are added up in float64, so
 * nothing overflows or drowns that float32 can hold, and in fixed lanes, so that no -ffast-math is needed: NaN and
 * infinities keep their meaning. The second half looks at the tensors through torch's own methods before it uses
 * their addresses, by Python's stable interface: one build serves all versions of Python and torch.
 * The structures are mirrored in `library.py`.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <string.h>

#define VERSION 2 /* of the structures and functions; `library.py` refuses any other */

#ifndef SOURCE
#define SOURCE "" /* sha256 of this file, given by who compiles it */
#endif

enum kind { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };
enum signal { GRAD_NORM, WEIGHT_NORM, UPDATE_RATIO, MEAN, VARIANCE, DEAD_SHARE, NONFINITE, SIGNALS };

struct units { /* the output units of a layer; the weights of one are `blocks` runs, `group` runs apart */
    int64_t layer, count;
    int64_t bias, weight; /* which parameters, -1 for none */
    int64_t group, blocks, run;
};

struct layer { /* what was read of a layer so far in this step */
    double gradient, weight, change; /* sums of squares */
    int64_t gradients, bad;          /* how many gradients it has, how many values in them are not finite */
    int64_t dead, units;             /* dead is -1 where no gradient tells */
    double size, mean, spread;       /* of its outputs; spread: sum of squared distances from the mean */
    int64_t bad_outputs, forward;    /* forward: it was called outside a backward pass */
};

struct plan {
    int64_t layers, parameters, trained, units; /* the first `trained` parameters are moved by the optimizer */
    const int64_t *sizes, *kinds, *owners; /* of each parameter: elements, kind, layer */
    uint64_t *weights;                     /* addresses */
    const uint64_t *copies;                /* addresses of room for the weights before the step, 0 for none */
    const struct units *unit;
    struct layer *layer;
    uint64_t *gradients;     /* room for the addresses of the gradients of this step */
    int64_t *gradient_kinds; /* and for their kinds */
};

/* ------------------------------------------------------------------ sums of one kind */

#define BLOCK 512                /* elements whose float32 sums are still exact enough to be added up in float64 */
#define TRUSTED(q) ((q) > 1e-24f && (q) < 3e38f) /* a float32 sum of squares that lost nothing to its range */

typedef float f4 __attribute__((vector_size(16), aligned(4), may_alias));
#define LOAD(x) (*(const f4 *)(x))
typedef uint32_t u4 __attribute__((vector_size(16), aligned(4), may_alias));
#define U4(x) (*(const u4 *)(x))

struct sums { double sum, square; };

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline float lanes(f4 a, f4 b, f4 c, f4 d) {
    f4 v = (a + b) + (c + d);
    return (v[0] + v[2]) + (v[1] + v[3]);
}

/* Whether any of these is not exactly zero, by their bits: -0 is zero, NaN is not. */
static inline int any_alive(const void *x, int64_t from, int64_t n, int64_t kind) {
    uint64_t seen = 0;
    if (kind == FLOAT32) {
        const uint32_t *p = (const uint32_t *)x + from, *end = p + n;
        u4 some = {0};
        for (; p + 16 <= end; p += 16) some |= (U4(p) | U4(p + 4)) | (U4(p + 8) | U4(p + 12));
        seen = (some[0] | some[1] | some[2] | some[3]) & 0x7fffffffu;
        for (; p < end; p++) seen |= *p & 0x7fffffffu;
    } else if (kind == FLOAT64)
        for (const uint64_t *p = (const uint64_t *)x + from, *end = p + n; p < end; p++) seen |= *p << 1;
    else
        for (const uint16_t *p = (const uint16_t *)x + from, *end = p + n; p < end; p++) seen |= *p & 0x7fff;
    return seen != 0;
}

/* One block in float32, each value times `scale`. */
static inline void sum_block(const float *x, int64_t n, float scale, float *sum, float *square) {
    f4 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, q0 = {0}, q1 = {0}, q2 = {0}, q3 = {0};
    const float *stop = x + n;
    for (; x + 16 <= stop; x += 16) {
        f4 a = LOAD(x) * scale, b = LOAD(x + 4) * scale, c = LOAD(x + 8) * scale, d = LOAD(x + 12) * scale;
        s0 += a, s1 += b, s2 += c, s3 += d;
        q0 += a * a, q1 += b * b, q2 += c * c, q3 += d * d;
    }
    float s = lanes(s0, s1, s2, s3), q = lanes(q0, q1, q2, q3);
    for (; x < stop; x++) s += *x * scale, q += *x * scale * (*x * scale);
    *sum = s, *square = q;
}

/* Float32 in lanes where that is enough, else again: small values (of gradients, say) enlarged, others in float64. */
static struct sums sums_f(const float *x, int64_t n) {
    struct sums all = {0, 0};
    for (int64_t i = 0; i < n; i += BLOCK, x += BLOCK) {
        int64_t many = least(BLOCK, n - i);
        float s, q;
        sum_block(x, many, 1, &s, &q);
        double sum = s, square = q;
        if (!TRUSTED(q) && (q != 0 || any_alive(x, 0, many, FLOAT32))) {
            int small = q < 1;
            if (small) sum_block(x, many, 0x1p60f, &s, &q);
            if (small && TRUSTED(q)) {
                sum = s * 0x1p-60, square = q * 0x1p-120;
            } else {
                sum = square = 0;
                for (int64_t k = 0; k < many; k++) sum += x[k], square += (double)x[k] * x[k];
            }
        }
        all.sum += sum, all.square += square;
    }
    return all;
}

static struct sums sums_d(const double *x, int64_t n) {
    struct sums all = {0, 0};
    for (int64_t i = 0; i < n; i++) all.sum += x[i], all.square += x[i] * x[i];
    return all;
}

/* The sum of squares of what these are away from `from`. */
static double change_f(const float *x, const float *from, int64_t n) {
    double all = 0;
    for (const float *end = x + n; x < end;) {
        const float *stop = end - x < BLOCK ? end : x + BLOCK;
        int64_t many = stop - x;
        f4 q0 = {0}, q1 = {0}, q2 = {0}, q3 = {0};
        for (; x + 16 <= stop; x += 16, from += 16) {
            f4 a = LOAD(x) - LOAD(from), b = LOAD(x + 4) - LOAD(from + 4);
            f4 c = LOAD(x + 8) - LOAD(from + 8), d = LOAD(x + 12) - LOAD(from + 12);
            q0 += a * a, q1 += b * b, q2 += c * c, q3 += d * d;
        }
        float q = lanes(q0, q1, q2, q3);
        for (; x < stop; x++, from++) q += (*x - *from) * (*x - *from);
        double square = q;
        if (!TRUSTED(q) && (q != 0 || memcmp(x - many, from - many, (size_t)many * sizeof *x)))
            for (square = 0, x -= many, from -= many; x < stop; x++, from++) {
                double away = (double)*x - *from;
                square += away * away;
            }
        all += square;
    }
    return all;
}

static double change_d(const double *x, const double *from, int64_t n) {
    double all = 0;
    for (int64_t i = 0; i < n; i++) all += (x[i] - from[i]) * (x[i] - from[i]);
    return all;
}

/* The sum of squared distances from the mean: for the few outputs whose sums of squares do not tell. */
static double spread_f(const float *x, double mean, int64_t n) {
    double all = 0;
    for (int64_t i = 0; i < n; i++) all += (x[i] - mean) * (x[i] - mean);
    return all;
}

static double spread_d(const double *x, double mean, int64_t n) {
    double all = 0;
    for (int64_t i = 0; i < n; i++) all += (x[i] - mean) * (x[i] - mean);
    return all;
}

/* ------------------------------------------------------------------ half precision */

static void widen(const uint16_t *x, float *to, int64_t n, int64_t kind) {
    if (kind == BFLOAT16) {
        for (int64_t i = 0; i < n; i++) {
            uint32_t bits = (uint32_t)x[i] << 16;
            memcpy(to + i, &bits, sizeof bits);
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)(x[i] & 0x7fff) << 13;
        float value;
        memcpy(&value, &bits, sizeof bits);
        value *= 0x1p112f; /* moves the exponent's zero, and makes subnormals normal */
        memcpy(&bits, &value, sizeof bits);
        bits |= (x[i] & 0x7c00) == 0x7c00 ? 0x7f800000u : 0;
        bits |= (uint32_t)(x[i] & 0x8000) << 16;
        memcpy(to + i, &bits, sizeof bits);
    }
}


/* ------------------------------------------------------------------ sums of any kind */

#define CHUNK 512 /* elements of half precision that are widened at a time */

static struct sums sums_of(const void *x, int64_t n, int64_t kind) {
    if (kind == FLOAT32) return sums_f(x, n);
    if (kind == FLOAT64) return sums_d(x, n);
    struct sums all = {0, 0};
    for (int64_t i = 0; i < n; i += CHUNK) {
        float part[CHUNK];
        int64_t many = least(CHUNK, n - i);
        widen((const uint16_t *)x + i, part, many, kind);
        struct sums some = sums_f(part, many);
        all.sum += some.sum, all.square += some.square;
    }
    return all;
}

static double spread_of(const void *x, double mean, int64_t n, int64_t kind) {
    if (kind == FLOAT32) return spread_f(x, mean, n);
    if (kind == FLOAT64) return spread_d(x, mean, n);
    double all = 0;
    for (int64_t i = 0; i < n; i += CHUNK) {
        float part[CHUNK];
        int64_t many = least(CHUNK, n - i);
        widen((const uint16_t *)x + i, part, many, kind);
        all += spread_f(part, mean, many);
    }
    return all;
}

static double change_of(const void *x, const void *from, int64_t n, int64_t kind) {
    if (kind == FLOAT32) return change_f(x, from, n);
    if (kind == FLOAT64) return change_d(x, from, n);
    double all = 0;
    for (int64_t i = 0; i < n; i += CHUNK) {
        float part[CHUNK], other[CHUNK];
        int64_t many = least(CHUNK, n - i);
        widen((const uint16_t *)x + i, part, many, kind);
        widen((const uint16_t *)from + i, other, many, kind);
        all += change_f(part, other, many);
    }
    return all;
}

/* The sum of squares, and a copy: by pieces that the nearest cache holds, so that each comes from memory once. */
static double keep_of(const void *x, void *to, int64_t n, int64_t kind) {
    int64_t width = kind == FLOAT64 ? 8 : kind == FLOAT32 ? 4 : 2;
    double all = 0;
    for (int64_t i = 0; i < n; i += 4 * BLOCK) {
        int64_t many = least(4 * BLOCK, n - i);
        const char *here = (const char *)x + i * width;
        if (to) memcpy((char *)to + i * width, here, (size_t)(many * width));
        all += sums_of(here, many, kind).square;
    }
    return all;
}

static int64_t count_bad(const void *x, int64_t n, int64_t kind) {
    int64_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t wide;
        uint32_t single;
        uint16_t half;
        switch (kind) {
        case FLOAT32: memcpy(&single, (const float *)x + i, 4), bad += (single & 0x7f800000u) == 0x7f800000u; break;
        case FLOAT64: memcpy(&wide, (const double *)x + i, 8), bad += (wide >> 52 & 0x7ff) == 0x7ff; break;
        case BFLOAT16: half = ((const uint16_t *)x)[i], bad += (half & 0x7f80) == 0x7f80; break;
        default: half = ((const uint16_t *)x)[i], bad += (half & 0x7c00) == 0x7c00;
        }
    }
    return bad;
}

/* ------------------------------------------------------------------ a step */

/* Count the dead units of a layer, given the addresses (0 where there is none) and kinds of the gradients. */
static int64_t dead_units(const struct units *u, const uint64_t *gradients, const int64_t *kinds) {
    const void *bias = u->bias < 0 ? NULL : (const void *)(uintptr_t)gradients[u->bias];
    const void *weight = u->weight < 0 ? NULL : (const void *)(uintptr_t)gradients[u->weight];
    if (!bias && !weight) return -1;
    int64_t dead = 0;
    for (int64_t unit = 0; unit < u->count; unit++) {
        int alive = bias && any_alive(bias, unit, 1, kinds[u->bias]);
        if (alive) continue;
        int64_t start = (unit / u->group * u->blocks * u->group + unit % u->group) * u->run;
        for (int64_t block = 0; weight && !alive && block < u->blocks; block++) {
            int64_t at = start + block * u->group * u->run;
            for (int64_t i = 0; !alive && i < u->run; i += 64)
                alive = any_alive(weight, at + i, least(64, u->run - i), kinds[u->weight]);
        }
        dead += !alive;
    }
    return dead;
}

static void read_gradients(const struct plan *plan, const uint64_t *gradients, const int64_t *kinds) {
    for (int64_t i = 0; i < plan->trained; i++) {
        const void *x = (const void *)(uintptr_t)gradients[i];
        struct layer *layer = plan->layer + plan->owners[i];
        if (!x) continue;
        double square = plan->sizes[i] ? sums_of(x, plan->sizes[i], kinds[i]).square : 0;
        layer->gradients++;
        layer->gradient += square;
        if (!isfinite(square)) layer->bad += count_bad(x, plan->sizes[i], kinds[i]);
    }
    for (int64_t i = 0; i < plan->units; i++) {
        struct layer *layer = plan->layer + plan->unit[i].layer;
        layer->dead = dead_units(plan->unit + i, gradients, kinds);
        layer->units = plan->unit[i].count;
    }
}

/* Forget what was read of gradients and weights, not of outputs. */
static void begin(struct layer *layer) {
    layer->gradient = layer->weight = layer->change = 0;
    layer->gradients = layer->bad = layer->units = 0;
    layer->dead = -1;
}

/* Read an output of a layer, and join it with what the layer put out before in this step. */
static void read_output(struct layer *layer, const void *x, int64_t elements, int64_t kind) {
    if (!elements || !x) return;
    double size = (double)elements;
    struct sums sums = sums_of(x, elements, kind);
    double mean = sums.sum / size;
    double spread = sums.square - sums.sum * mean;
    if (!(spread > 0.1 * sums.square)) { /* cancelled, or not finite: again around the mean */
        spread = sums.square == 0 ? 0 : spread_of(x, mean, elements, kind);
        if (!isfinite(spread)) layer->bad_outputs += count_bad(x, elements, kind);
    }
    double before = layer->size, both = before + size, apart = mean - layer->mean;
    if (before == 0) {
        layer->mean = mean, layer->spread = spread;
    } else {
        layer->mean += apart * (size / both);
        layer->spread += spread + apart * apart * (before * size / both);
    }
    layer->size = both;
}

/* Read the gradients (NULL: `after` will) and the weights, and keep a copy of the weights. */
static void read_before(const struct plan *plan, const uint64_t *gradients, const int64_t *kinds) {
    for (int64_t i = 0; i < plan->layers; i++) begin(plan->layer + i);
    if (gradients) read_gradients(plan, gradients, kinds);
    for (int64_t i = 0; i < plan->parameters; i++)
        if (plan->sizes[i])
            plan->layer[plan->owners[i]].weight +=
                keep_of((const void *)(uintptr_t)plan->weights[i], (void *)(uintptr_t)plan->copies[i], plan->sizes[i],
                        plan->kinds[i]);
}

/* Forget the outputs of this step. */
static void forget_outputs(const struct plan *plan) {
    for (int64_t i = 0; i < plan->layers; i++) {
        struct layer *layer = plan->layer + i;
        layer->size = layer->mean = layer->spread = 0;
        layer->bad_outputs = layer->forward = 0;
    }
}

/* Read what the step changed, and the gradients where they are given; write the signals and begin the next step.
 *
 * `record` has a row of `layers` values for each signal, then a row of bits that say which of them were measured.
 * Returns whether all were. */
static int read_after(const struct plan *plan, const uint64_t *gradients, const int64_t *kinds, double scale,
                      float *record) {
    if (gradients) read_gradients(plan, gradients, kinds);
    for (int64_t i = 0; i < plan->parameters; i++)
        if (plan->sizes[i] && plan->copies[i])
            plan->layer[plan->owners[i]].change +=
                change_of((const void *)(uintptr_t)plan->weights[i], (const void *)(uintptr_t)plan->copies[i],
                          plan->sizes[i], plan->kinds[i]);
    int whole = 1;
    int64_t n = plan->layers;
    for (int64_t i = 0; i < n; i++) {
        const struct layer *layer = plan->layer + i;
        float *out = record + i;
        int seen = layer->size > 0, graded = layer->gradients > 0;
        double share = layer->dead < 0 ? 0 : (double)layer->dead / (double)layer->units;
        uint32_t has = 1u << WEIGHT_NORM;
        out[GRAD_NORM * n] = graded ? (float)(sqrt(layer->gradient) / scale) : 0;
        out[WEIGHT_NORM * n] = (float)sqrt(layer->weight);
        /* Nothing moved a layer without gradients, and a change of nothing has no ratio. */
        int moved = graded && layer->weight != 0;
        out[UPDATE_RATIO * n] = moved ? (float)(sqrt(layer->change) / sqrt(layer->weight)) : 0;
        out[MEAN * n] = seen ? (float)layer->mean : 0;
        out[VARIANCE * n] = seen ? (float)(layer->spread / layer->size) : 0;
        /* All gradients zero in a layer that was not seen to run: unused or dead, nobody can tell. */
        int known = layer->dead >= 0 && (seen || share != 1);
        out[DEAD_SHARE * n] = known ? (float)share : 0;
        out[NONFINITE * n] = seen || graded ? (float)(layer->bad + (seen ? layer->bad_outputs : 0)) : 0;
        has |= (uint32_t)graded << GRAD_NORM | (uint32_t)moved << UPDATE_RATIO;
        has |= (uint32_t)seen << MEAN | (uint32_t)seen << VARIANCE;
        has |= (uint32_t)known << DEAD_SHARE | (uint32_t)(seen || graded) << NONFINITE;
        memcpy(out + SIGNALS * n, &has, sizeof has);
        whole &= has == (1u << SIGNALS) - 1;
    }
    forget_outputs(plan);
    return whole;
}

/* ------------------------------------------------------------------ tensors */

#define LARGE (1 << 17) /* elements that take longer to read than the interpreter's lock to give up and get back */

static PyObject *tensor_type, *parameter_type, *data_ptr, *numel, *is_contiguous, *dtypes[4];
static PyObject *name_dtype, *name_grad, *name_is_cpu;

struct view { const void *data; int64_t size, kind; };

/* What DLPack 1 has of a tensor, and the table by which frameworks give it (`__dlpack_c_exchange_api__` of a type):
 * https://dmlc.github.io/dlpack/latest/c_api.html. One call without an object tells what five methods do. */
struct dl_tensor {
    void *data;
    int32_t device, device_id;
    int32_t dimensions;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t offset;
};

struct dl_exchange {
    struct { uint32_t major, minor; } version;
    struct dl_exchange *before; /* the table of an older version */
    void *allocate, *managed_from, *managed_to;
    int (*tensor_from)(void *object, struct dl_tensor *out); /* NULL where there is none; not 0 with an exception set */
    void *stream;
};

enum { DL_CPU = 1, DL_FLOAT = 2, DL_BFLOAT = 4 };

static const struct dl_exchange *exchange; /* torch's, NULL for a torch without one */

static const struct dl_exchange *find_exchange(void) {
    PyObject *capsule = PyObject_GetAttrString(tensor_type, "__dlpack_c_exchange_api__");
    const struct dl_exchange *found = capsule ? PyCapsule_GetPointer(capsule, "dlpack_exchange_api") : NULL;
    Py_XDECREF(capsule);
    PyErr_Clear();
    while (found && found->version.major > 1) found = found->before;
    return found && found->version.major == 1 && found->tensor_from ? found : NULL;
}

/* Fill in a view. False for a tensor that is not on the CPU, of another kind, or does not lie in one piece. */
static int view_of(const struct dl_tensor *from, struct view *view) {
    if (from->device != DL_CPU || from->lanes != 1) return 0;
    if (from->code == DL_FLOAT && from->bits == 32) view->kind = FLOAT32;
    else if (from->code == DL_FLOAT && from->bits == 64) view->kind = FLOAT64;
    else if (from->code == DL_FLOAT && from->bits == 16) view->kind = FLOAT16;
    else if (from->code == DL_BFLOAT && from->bits == 16) view->kind = BFLOAT16;
    else return 0;
    int64_t size = 1;
    int packed = 1;
    for (int32_t i = from->dimensions - 1; i >= 0; i--) {
        packed &= from->shape[i] == 1 || !from->strides || from->strides[i] == size;
        size *= from->shape[i];
    }
    view->size = size;
    view->data = from->data ? (const char *)from->data + from->offset : NULL;
    return !size || (packed && view->data);
}

/* Call a method that says yes or no. */
static int says(PyObject *method, PyObject *tensor) {
    PyObject *answer = PyObject_CallFunctionObjArgs(method, tensor, NULL);
    int yes = answer == Py_True;
    Py_XDECREF(answer);
    return yes;
}

static int64_t number(PyObject *method, PyObject *tensor) {
    PyObject *answer = PyObject_CallFunctionObjArgs(method, tensor, NULL);
    int64_t value = answer ? (int64_t)PyLong_AsUnsignedLongLongMask(answer) : -1;
    Py_XDECREF(answer);
    return value;
}

/* Find out where a tensor stands. False for one that cannot be read there, whatever torch says of it. */
static int look_at(PyObject *tensor, struct view *view) {
    PyTypeObject *type = Py_TYPE(tensor);
    if ((PyObject *)type != tensor_type && (PyObject *)type != parameter_type) return 0;
    if (exchange) {
        struct dl_tensor found;
        if (!exchange->tensor_from(tensor, &found)) return view_of(&found, view);
        PyErr_Clear(); /* sparse, or without memory of its own */
        return 0;
    }
    PyObject *dtype = PyObject_GetAttr(tensor, name_dtype), *cpu = PyObject_GetAttr(tensor, name_is_cpu);
    view->kind = 0;
    while (view->kind < 4 && dtypes[view->kind] != dtype) view->kind++;
    int plain = view->kind < 4 && cpu == Py_True && says(is_contiguous, tensor);
    Py_XDECREF(dtype);
    Py_XDECREF(cpu);
    if (plain) {
        view->size = number(numel, tensor);
        view->data = (const void *)(uintptr_t)number(data_ptr, tensor);
        plain = !PyErr_Occurred() && (view->data || !view->size);
    }
    PyErr_Clear(); /* sparse, or without memory of its own */
    return plain;
}

static int64_t size_of(const struct plan *plan) {
    int64_t all = 0;
    for (int64_t i = 0; i < plan->parameters; i++) all += plan->sizes[i];
    return all;
}

enum { ODD = -1, MOVED = -2 };

/* See that the weights are where they were, or write down where they are now. */
static int find_weights(struct plan *plan, PyObject *parameters) {
    if (PyList_Size(parameters) != plan->parameters) return MOVED;
    for (int64_t i = 0; i < plan->parameters; i++) {
        PyObject *parameter = PyList_GetItem(parameters, i);
        struct view view;
        if (!exchange) {
            if ((uint64_t)number(data_ptr, parameter) == plan->weights[i] && number(numel, parameter) == plan->sizes[i])
                continue;
            PyErr_Clear();
        }
        if (!look_at(parameter, &view) || view.size != plan->sizes[i] || view.kind != plan->kinds[i]) return MOVED;
        plan->weights[i] = (uint64_t)(uintptr_t)view.data;
    }
    return 0;
}

/* Find the gradients: those of the parameters, or those in a list. `held` gets a reference to each. */
static int find_gradients(struct plan *plan, PyObject *parameters, PyObject *given, PyObject *held) {
    if (given && PyList_Size(given) != plan->trained) return MOVED;
    for (int64_t i = 0; i < plan->trained; i++) {
        PyObject *gradient;
        if (given) Py_INCREF(gradient = PyList_GetItem(given, i));
        else gradient = PyObject_GetAttr(PyList_GetItem(parameters, i), name_grad);
        if (!gradient) return ODD;
        struct view view = {NULL, 0, 0};
        int none = gradient == Py_None;
        int plain = none || (look_at(gradient, &view) && view.size == plan->sizes[i]);
        int kept = PyList_Append(held, gradient);
        Py_DECREF(gradient);
        if (kept < 0 || !plain) return ODD;
        plan->gradients[i] = none ? 0 : view.data ? (uint64_t)(uintptr_t)view.data : 1;
        plan->gradient_kinds[i] = view.kind;
    }
    return 0;
}

/* ------------------------------------------------------------------ what Python calls */

/* output(place, tensor): read an output; False where torch has to prepare it first. */
static PyObject *py_output(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 2) return PyErr_Format(PyExc_TypeError, "output: place, tensor");
    struct layer *layer = PyLong_AsVoidPtr(args[0]);
    struct view view;
    if (!layer && PyErr_Occurred()) return NULL;
    if (!look_at(args[1], &view)) Py_RETURN_FALSE;
    if (view.size > LARGE) {
        Py_BEGIN_ALLOW_THREADS
        read_output(layer, view.data, view.size, view.kind);
        Py_END_ALLOW_THREADS
    } else {
        read_output(layer, view.data, view.size, view.kind);
    }
    layer->forward = 1;
    Py_RETURN_TRUE;
}

/* The weights, and the gradients if they are asked for: True for those of the parameters, a list for others. */
static int find(struct plan *plan, PyObject *parameters, PyObject *gradients, PyObject *held) {
    int found = find_weights(plan, parameters);
    if (!found && gradients != Py_False)
        found = find_gradients(plan, parameters, gradients == Py_True ? NULL : gradients, held);
    if (found && PyErr_Occurred()) PyErr_Clear();
    return found;
}

/* before(plan, parameters, gradients): 0, ODD or MOVED. */
static PyObject *py_before(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 3) return PyErr_Format(PyExc_TypeError, "before: plan, parameters, gradients");
    struct plan *plan = PyLong_AsVoidPtr(args[0]);
    PyObject *held = PyList_New(0);
    if (!plan || !held) return NULL;
    int found = find(plan, args[1], args[2], held);
    if (!found) {
        const uint64_t *gradients = args[2] == Py_False ? NULL : plan->gradients;
        PyThreadState *state = size_of(plan) > LARGE ? PyEval_SaveThread() : NULL;
        read_before(plan, gradients, plan->gradient_kinds);
        if (state) PyEval_RestoreThread(state);
    }
    Py_DECREF(held);
    return PyLong_FromLong(found);
}

/* after(plan, parameters, gradients, scale, record): whether every signal was measured, ODD or MOVED. */
static PyObject *py_after(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 5) return PyErr_Format(PyExc_TypeError, "after: plan, parameters, gradients, scale, record");
    struct plan *plan = PyLong_AsVoidPtr(args[0]);
    double scale = PyFloat_AsDouble(args[3]);
    float *record = PyLong_AsVoidPtr(args[4]);
    if (PyErr_Occurred()) return NULL;
    PyObject *held = PyList_New(0);
    if (!held) return NULL;
    int found = find(plan, args[1], args[2], held);
    if (!found) {
        const uint64_t *gradients = args[2] == Py_False ? NULL : plan->gradients;
        PyThreadState *state = size_of(plan) > LARGE ? PyEval_SaveThread() : NULL;
        found = read_after(plan, gradients, plan->gradient_kinds, scale, record);
        if (state) PyEval_RestoreThread(state);
    }
    Py_DECREF(held);
    return PyLong_FromLong(found);
}

/* forget(plan): begin the next step without having asked for this one. */
static PyObject *py_forget(PyObject *self, PyObject *address) {
    (void)self;
    struct plan *plan = PyLong_AsVoidPtr(address);
    if (!plan) return NULL;
    forget_outputs(plan);
    Py_RETURN_NONE;
}

/* same(dicts, ids): whether these dictionaries still hold the objects with these ids, in this order. */
static PyObject *py_same(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 2 || !PyList_Check(args[0]) || !PyList_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "same: dicts, ids");
    Py_ssize_t wanted = PyList_Size(args[1]), seen = 0;
    for (Py_ssize_t i = 0; i < PyList_Size(args[0]); i++) {
        PyObject *dict = PyList_GetItem(args[0], i), *value;
        Py_ssize_t at = 0;
        if (!PyDict_Check(dict)) return PyErr_Format(PyExc_TypeError, "same: dicts, ids");
        while (PyDict_Next(dict, &at, NULL, &value)) {
            if (seen == wanted || PyLong_AsVoidPtr(PyList_GetItem(args[1], seen++)) != value) {
                if (PyErr_Occurred()) return NULL;
                Py_RETURN_FALSE;
            }
        }
    }
    return PyBool_FromLong(seen == wanted);
}

static PyMethodDef methods[] = {
    {"output", (PyCFunction)(void (*)(void))py_output, METH_FASTCALL, NULL},
    {"before", (PyCFunction)(void (*)(void))py_before, METH_FASTCALL, NULL},
    {"after", (PyCFunction)(void (*)(void))py_after, METH_FASTCALL, NULL},
    {"forget", py_forget, METH_O, NULL},
    {"same", (PyCFunction)(void (*)(void))py_same, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static int begin_module(PyObject *module) {
    static const char *const kinds[] = {"float32", "float64", "bfloat16", "float16"};
    PyObject *torch = PyImport_ImportModule("torch"), *parameters = PyImport_ImportModule("torch.nn.parameter");
    if (!torch || !parameters || !(tensor_type = PyObject_GetAttrString(torch, "Tensor"))) return -1;
    for (int i = 0; i < 4; i++)
        if (!(dtypes[i] = PyObject_GetAttrString(torch, kinds[i]))) return -1;
    parameter_type = PyObject_GetAttrString(parameters, "Parameter");
    data_ptr = PyObject_GetAttrString(tensor_type, "data_ptr");
    numel = PyObject_GetAttrString(tensor_type, "numel");
    is_contiguous = PyObject_GetAttrString(tensor_type, "is_contiguous");
    name_dtype = PyUnicode_InternFromString("dtype");
    name_grad = PyUnicode_InternFromString("grad");
    name_is_cpu = PyUnicode_InternFromString("is_cpu");
    Py_DECREF(torch);
    Py_DECREF(parameters);
    exchange = find_exchange();
    if (PyErr_Occurred() || PyModule_AddIntConstant(module, "VERSION", VERSION)) return -1;
    if (PyModule_AddIntConstant(module, "EXCHANGE", exchange != NULL)) return -1;
    return PyModule_AddStringConstant(module, "SOURCE", SOURCE);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)begin_module}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "reading", "See native.py.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__reading(void) { return PyModuleDef_Init(&definition); }
