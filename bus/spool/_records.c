/* Append records to a segment: `records.py` says what a record is and has the same in Python.
 *
 * Once a call has read its arguments it holds the interpreter's lock to its end and runs no Python code, so no thread
 * and no signal handler ever sees half of it. A kill does: the first byte of a record is therefore written
 * last. Compiled against Python's stable interface: one build serves every version.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <structmember.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1 /* of the class; `records.py` refuses any other */

#ifndef SOURCE
#define SOURCE "" /* sha256 of this file, given by who compiles it */
#endif

typedef struct {
    PyObject_HEAD
    Py_buffer room;
    long long first, end, size, count; /* the records first, first + 1, ...; `end` and `size` in bytes */
    uint64_t *ends;                    /* where each of them ends */
    long long places;                  /* how many of these there is memory for */
} Records;

/* ------------------------------------------------------------------ CRC-32, as zlib computes it */

static uint32_t table[8][256];

static void make_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        table[0][i] = c;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++) table[k][i] = table[0][table[k - 1][i] & 255] ^ (table[k - 1][i] >> 8);
}

static inline uint32_t little(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t crc32_of(const uint8_t *p, int64_t n) {
    uint32_t c = 0xFFFFFFFFu;
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t a = c ^ little(p), b = little(p + 4);
        c = table[7][a & 255] ^ table[6][a >> 8 & 255] ^ table[5][a >> 16 & 255] ^ table[4][a >> 24] ^
            table[3][b & 255] ^ table[2][b >> 8 & 255] ^ table[1][b >> 16 & 255] ^ table[0][b >> 24];
    }
    for (; n > 0; n--, p++) c = table[0][(c ^ *p) & 255] ^ (c >> 8);
    return ~c;
}

/* ------------------------------------------------------------------ msgpack */

static inline uint8_t *big(uint8_t *p, uint64_t value, int bytes) {
    while (bytes) *p++ = (uint8_t)(value >> 8 * --bytes);
    return p;
}

static inline uint8_t *copy(uint8_t *p, const void *from, Py_ssize_t size) {
    memcpy(p, from, (size_t)size);
    return p + size;
}

static int int_size(int64_t v) {
    if (v >= -32 && v < 128) return 1;
    if (v >= 0) return v < 1 << 8 ? 2 : v < 1 << 16 ? 3 : v < 1LL << 32 ? 5 : 9;
    return v >= INT8_MIN ? 2 : v >= INT16_MIN ? 3 : v >= INT32_MIN ? 5 : 9;
}

static uint8_t *put_int(uint8_t *p, int64_t v) {
    int bytes = int_size(v) - 1, power = bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : 3;
    if (bytes) *p++ = (uint8_t)((v < 0 ? 0xD0 : 0xCC) + power);
    return bytes ? big(p, (uint64_t)v, bytes) : big(p, (uint64_t)v, 1);
}

static int text_head(Py_ssize_t size) { return size < 32 ? 1 : size < 1 << 8 ? 2 : size < 1 << 16 ? 3 : 5; }

static uint8_t *put_text(uint8_t *p, const char *text, Py_ssize_t size) {
    int head = text_head(size);
    *p++ = head == 1 ? (uint8_t)(0xA0 | size) : head == 2 ? 0xD9 : head == 3 ? 0xDA : 0xDB;
    if (head > 1) p = big(p, (uint64_t)size, head - 1);
    return copy(p, text, size);
}

static int map_head(Py_ssize_t count) { return count < 16 ? 1 : count < 1 << 16 ? 3 : 5; }

static uint8_t *put_map(uint8_t *p, Py_ssize_t count) {
    int head = map_head(count);
    *p++ = head == 1 ? (uint8_t)(0x80 | count) : head == 3 ? 0xDE : 0xDF;
    return head > 1 ? big(p, (uint64_t)count, head - 1) : p;
}

/* Read a value that is a float or an int of 64 bits, and no subclass of either. */
enum number { OTHER, FLOAT, INT };

static enum number number_of(PyObject *value, double *real, long long *whole) {
    if (Py_IS_TYPE(value, &PyFloat_Type)) return *real = PyFloat_AsDouble(value), FLOAT;
    if (!Py_IS_TYPE(value, &PyLong_Type)) return OTHER;
    int overflow;
    *whole = PyLong_AsLongLongAndOverflow(value, &overflow);
    return overflow ? OTHER : INT;
}

enum outcome { NO_ROOM, WRITTEN, NOT_PLAIN };

/* Write a dict of names and plain numbers below `limit`, and move `at` behind what was written, whatever comes of it. */
static enum outcome put_numbers(uint8_t **at, const uint8_t *limit, PyObject *values) {
    PyObject *key, *value;
    Py_ssize_t place = 0, length, count = PyDict_Size(values);
    double real;
    long long whole;
    if (!count) return NOT_PLAIN;
    if (limit - *at < 5) return NO_ROOM;
    uint8_t *p = *at = put_map(*at, count);
    while (PyDict_Next(values, &place, &key, &value)) {
        enum number kind = number_of(value, &real, &whole);
        if (kind == OTHER || !Py_IS_TYPE(key, &PyUnicode_Type)) return NOT_PLAIN;
        const char *text = PyUnicode_AsUTF8AndSize(key, &length);
        if (!text) {
            PyErr_Clear();
            return NOT_PLAIN;
        }
        if (limit - p < length + 14) return NO_ROOM; /* the longest heads: 5 bytes of a text, 9 of a number */
        p = put_text(p, text, length);
        if (kind == FLOAT) {
            uint64_t bits;
            memcpy(&bits, &real, 8);
            *p++ = 0xCB;
            p = big(p, bits, 8);
        } else
            p = put_int(p, whole);
        *at = p;
    }
    return WRITTEN;
}

/* ------------------------------------------------------------------ records */

#define HEAD 10    /* 0xCE length 0xCE crc32 */
#define COUNTER 12 /* a map of seven, whose first key is n */
static const char counter[] = "\x87\xa1n\xcf", time_key[] = "\xa4time\xcf", no_cause[] = "\xa5" "cause\xc0\xa4" "body";
#define SIZE(text) ((Py_ssize_t)sizeof(text) - 1)

/* Where the event of a record with `size` bytes after its counter goes; NULL where there is no room for it. */
static uint8_t *begin(Records *self, Py_ssize_t size) {
    if (size > self->size - self->end - HEAD - COUNTER || size > UINT32_MAX - COUNTER) return NULL;
    if (self->count == self->places) {
        long long places = self->places ? 2 * self->places : 256;
        uint64_t *ends = realloc(self->ends, (size_t)places * sizeof *ends);
        if (!ends) return PyErr_NoMemory(), NULL;
        self->ends = ends;
        self->places = places;
    }
    uint8_t *event = (uint8_t *)self->room.buf + self->end + HEAD;
    return big(copy(event, counter, SIZE(counter)), (uint64_t)(self->first + self->count), 8);
}

/* Make a record of what was written from `begin` up to `stop`; return its counter. */
static PyObject *commit(Records *self, uint8_t *stop) {
    uint8_t *start = (uint8_t *)self->room.buf + self->end, *event = start + HEAD;
    big(start + 1, (uint64_t)(stop - event), 4);
    start[5] = 0xCE;
    big(start + 6, crc32_of(event, stop - event), 4);
    __atomic_store_n(start, 0xCE, __ATOMIC_RELEASE);
    self->end += stop - start;
    self->ends[self->count++] = (uint64_t)self->end;
    return PyLong_FromLongLong(self->first + self->count - 1);
}

static PyObject *no_record(long why) { return PyErr_Occurred() ? NULL : PyLong_FromLong(why); }

struct head { /* the arguments that are the same for every event */
    const char *middle;
    Py_ssize_t length;
    long long step;
    unsigned long long time;
};

static int read_head(PyObject *const *args, struct head *head) {
    char *middle;
    if (PyBytes_AsStringAndSize(args[0], &middle, &head->length)) return -1;
    head->middle = middle;
    head->step = PyLong_AsLongLong(args[1]);
    if (PyErr_Occurred()) return -1;
    head->time = PyLong_AsUnsignedLongLong(args[2]);
    return PyErr_Occurred() ? -1 : 0;
}

static Py_ssize_t head_size(const struct head *head) { return head->length + 8 + SIZE(time_key) + 8 + SIZE(no_cause); }

static uint8_t *put_head(uint8_t *p, const struct head *head) {
    p = big(copy(p, head->middle, head->length), (uint64_t)head->step, 8);
    p = big(copy(p, time_key, SIZE(time_key)), head->time, 8);
    return copy(p, no_cause, SIZE(no_cause));
}

static PyObject *append(Records *self, PyObject *const *args, Py_ssize_t count) {
    struct head head;
    char *body;
    Py_ssize_t size;
    if (count != 4) return PyErr_Format(PyExc_TypeError, "append: middle, step, time_ns, body");
    if (read_head(args, &head) || PyBytes_AsStringAndSize(args[3], &body, &size)) return NULL;
    uint8_t *p = begin(self, head_size(&head) + size);
    return p ? commit(self, copy(put_head(p, &head), body, size)) : no_record(0);
}

static PyObject *append_numbers(Records *self, PyObject *const *args, Py_ssize_t count) {
    struct head head;
    char *before;
    Py_ssize_t length;
    if (count != 5) return PyErr_Format(PyExc_TypeError, "append_numbers: middle, step, time_ns, before, values");
    if (read_head(args, &head) || PyBytes_AsStringAndSize(args[3], &before, &length)) return NULL;
    if (!Py_IS_TYPE(args[4], &PyDict_Type)) return no_record(-1);
    uint8_t *p = begin(self, head_size(&head) + length);
    if (!p) return no_record(0);
    uint8_t *start = (uint8_t *)self->room.buf + self->end;
    p = copy(put_head(p, &head), before, length);
    enum outcome outcome = put_numbers(&p, (uint8_t *)self->room.buf + self->size, args[4]);
    if (outcome == WRITTEN) return commit(self, p);
    memset(start, 0, (size_t)(p - start)); /* what lies behind the last record begins with a zero, wherever that ends */
    return no_record(outcome == NO_ROOM ? 0 : -1);
}

static PyObject *put(Records *self, PyObject *rest) {
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(rest, &bytes, &size)) return NULL;
    uint8_t *p = begin(self, size);
    return p ? commit(self, copy(p, bytes, size)) : no_record(0);
}

static PyObject *seal(Records *self, PyObject *nothing) {
    (void)nothing;
    self->size = self->end;
    Py_RETURN_NONE;
}

static PyObject *end_of(Records *self, PyObject *place) {
    long long index = PyLong_AsLongLong(place);
    if (PyErr_Occurred()) return NULL;
    if (index < 0 || index >= self->count) return PyErr_Format(PyExc_IndexError, "no record %lld", index);
    return PyLong_FromUnsignedLongLong(self->ends[index]);
}

static PyObject *within(Records *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) return PyErr_Format(PyExc_TypeError, "within: index, budget");
    long long index = PyLong_AsLongLong(args[0]), budget = PyLong_AsLongLong(args[1]);
    if (PyErr_Occurred()) return NULL;
    if (index < 0 || index >= self->count) return PyErr_Format(PyExc_IndexError, "no record %lld", index);
    uint64_t limit = (index ? self->ends[index - 1] : 0) + (uint64_t)(budget < 0 ? 0 : budget);
    long long low = index + 1, high = self->count;
    while (low < high) {
        long long middle = low + (high - low) / 2;
        if (self->ends[middle] <= limit)
            low = middle + 1;
        else
            high = middle;
    }
    return PyLong_FromLongLong(low);
}

/* ------------------------------------------------------------------ the class */

static int begin_records(Records *self, PyObject *args, PyObject *named) {
    PyObject *room;
    if (self->room.obj) return PyErr_Format(PyExc_TypeError, "Records begins once"), -1;
    if (named && PyDict_Size(named)) return PyErr_Format(PyExc_TypeError, "Records: room"), -1;
    if (!PyArg_ParseTuple(args, "O", &room) || PyObject_GetBuffer(room, &self->room, PyBUF_WRITABLE)) return -1;
    self->size = self->room.len;
    return 0;
}

static void end_records(Records *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (self->room.obj) PyBuffer_Release(&self->room);
    free(self->ends);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"append", (PyCFunction)(void (*)(void))append, METH_FASTCALL, NULL},
    {"append_numbers", (PyCFunction)(void (*)(void))append_numbers, METH_FASTCALL, NULL},
    {"put", (PyCFunction)put, METH_O, NULL},
    {"seal", (PyCFunction)seal, METH_NOARGS, NULL},
    {"end_of", (PyCFunction)end_of, METH_O, NULL},
    {"within", (PyCFunction)(void (*)(void))within, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"first", T_LONGLONG, offsetof(Records, first), 0, NULL},
    {"end", T_LONGLONG, offsetof(Records, end), READONLY, NULL},
    {"size", T_LONGLONG, offsetof(Records, size), READONLY, NULL},
    {"count", T_LONGLONG, offsetof(Records, count), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots_of_class[] = {
    {Py_tp_init, begin_records}, {Py_tp_dealloc, end_records},           {Py_tp_methods, methods},
    {Py_tp_members, members},    {Py_tp_new, (void *)PyType_GenericNew}, {0, NULL},
};

static PyType_Spec spec = {"morphogen.bus.spool._records.Records", sizeof(Records), 0, Py_TPFLAGS_DEFAULT,
                           slots_of_class};

static int begin_module(PyObject *module) {
    make_table();
    PyObject *class = PyType_FromSpec(&spec);
    if (!class || PyModule_AddObjectRef(module, "Records", class)) return -1;
    Py_DECREF(class);
    if (PyModule_AddIntConstant(module, "VERSION", VERSION)) return -1;
    return PyModule_AddStringConstant(module, "SOURCE", SOURCE);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)begin_module}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "records", "See records.py.", 0, NULL, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__records(void) { return PyModuleDef_Init(&definition); }
