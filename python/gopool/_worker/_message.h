// SPDX-License-Identifier: MIT
//
// The worker's messages as msgpack, as Go writes them and wants them (bridge/PROTOCOL.md, sections 3
// to 5). What is written in another way, or is none, message.py reads with the msgpack package, and
// says what is wrong. Importing that takes 7 ms (half of it is `datetime`), a tenth of what a program
// with one pool takes, and a worker without it sends its first result that much earlier.

#include <Python.h>

#include <stdint.h>
#include <string.h>

enum { TASK = 1, DONE = 18, MAX_MODE = 2, MAX_STATUS = 2, MAX_ELEMENTS = 15 };

// What is left of a message that is read.
typedef struct { const unsigned char *at, *end; } Bytes;

static uint64_t big_endian(const unsigned char *at, size_t size) {
    uint64_t value = 0;
    while (size--)
        value = value << 8 | *at++;
    return value;
}

// Read a number of 0 to most; 0: it is none, and nobody reads on.
static int read_uint(Bytes *in, uint64_t most, uint64_t *value) {
    if (in->at == in->end)
        return 0;
    unsigned char code = *in->at++;
    if (code <= 0x7f) {
        *value = code;
    } else if (code >= 0xcc && code <= 0xcf) {  // of 1, 2, 4 or 8 bytes
        size_t size = (size_t)1 << (code - 0xcc);
        if ((size_t)(in->end - in->at) < size)
            return 0;
        *value = big_endian(in->at, size);
        in->at += size;
    } else {
        return 0;
    }
    return *value <= most;
}

// Read bytes where they lie; 0: they are none, and nobody reads on.
static int read_bin(Bytes *in, Bytes *value) {
    if (in->at == in->end || *in->at < 0xc4 || *in->at > 0xc6)  // a size of 1, 2 or 4 bytes
        return 0;
    size_t size = (size_t)1 << (*in->at++ - 0xc4);
    if ((size_t)(in->end - in->at) < size)
        return 0;
    uint64_t length = big_endian(in->at, size);
    in->at += size;
    if ((uint64_t)(in->end - in->at) < length)
        return 0;
    *value = (Bytes){in->at, in->at + length};
    in->at = value->end;
    return 1;
}

static PyObject *copy(Bytes bytes) {
    return PyBytes_FromStringAndSize((const char *)bytes.at, bytes.end - bytes.at);
}

// A Task's fields, as message.decode_task gives them; None where it is not one, or one that is
// written in another way than Go does. descriptor: whether one came with it.
static PyObject *decode_task(Bytes in, int descriptor) {
    Bytes payload = {NULL, NULL}, definition = {NULL, NULL};
    uint64_t number, mode, function, region = 0;
    if (in.end - in.at < 2 || in.at[0] != 0x96 || in.at[1] != TASK)
        Py_RETURN_NONE;
    in.at += 2;
    if (!read_uint(&in, UINT64_MAX, &number) || number == 0 || !read_uint(&in, MAX_MODE, &mode) ||
        !read_uint(&in, UINT32_MAX, &function))
        Py_RETURN_NONE;
    if (descriptor ? !read_uint(&in, INT64_MAX, &region) || region == 0 : !read_bin(&in, &payload))
        Py_RETURN_NONE;
    if (in.at == in.end)
        Py_RETURN_NONE;
    if (*in.at == 0xc0)
        in.at++;
    else if (!read_bin(&in, &definition) || definition.at == definition.end || function == 0)
        Py_RETURN_NONE;
    if (in.at != in.end)
        Py_RETURN_NONE;
    PyObject *fields[5] = {
        PyLong_FromUnsignedLongLong(number),
        PyLong_FromUnsignedLongLong(mode),
        PyLong_FromUnsignedLongLong(function),
        descriptor ? PyLong_FromUnsignedLongLong(region) : copy(payload),
        definition.at == NULL ? Py_NewRef(Py_None) : copy(definition),
    };
    PyObject *task = PyTuple_New(5);
    for (int i = 0; i < 5; i++) {
        if (fields[i] == NULL || task == NULL) {
            Py_CLEAR(task);
            Py_XDECREF(fields[i]);
        } else {
            PyTuple_SET_ITEM(task, i, fields[i]);
        }
    }
    return task;
}

static unsigned char *write_big_endian(unsigned char *at, uint64_t value, size_t size) {
    for (size_t i = size; i--; value >>= 8)
        at[i] = (unsigned char)value;
    return at + size;
}

static unsigned char *write_uint(unsigned char *at, uint64_t value) {
    if (value <= 0x7f) {
        *at = (unsigned char)value;
        return at + 1;
    }
    int power = value <= UINT8_MAX ? 0 : value <= UINT16_MAX ? 1 : value <= UINT32_MAX ? 2 : 3;
    *at = (unsigned char)(0xcc + power);
    return write_big_endian(at + 1, value, (size_t)1 << power);
}

// `code` is that of the form with a size of one byte: bin or str.
static unsigned char *write_header(unsigned char *at, unsigned char code, uint64_t size) {
    int power = size <= UINT8_MAX ? 0 : size <= UINT16_MAX ? 1 : 2;
    *at = (unsigned char)(code + power);
    return write_big_endian(at + 1, size, (size_t)1 << power);
}

static unsigned char *write_bin_header(unsigned char *at, uint64_t size) {
    return write_header(at, 0xc4, size);
}

static unsigned char *write_str_header(unsigned char *at, uint64_t size) {
    if (size > 31)
        return write_header(at, 0xd9, size);
    *at = (unsigned char)(0xa0 | size);
    return at + 1;
}

// One element of a message that is written: its header, and what follows that lies elsewhere.
typedef struct {
    unsigned char header[9], *end;
    Py_buffer held;    // of an object that has a buffer
    const char *text;  // of a str
    Py_ssize_t size;
} Element;

// -1: there is an exception, and nothing is held.
static int look_at(PyObject *value, Element *element) {
    element->held.obj = NULL;
    element->text = NULL;
    element->size = 0;
    if (PyLong_Check(value)) {
        unsigned long long number = PyLong_AsUnsignedLongLong(value);
        if (number == (unsigned long long)-1 && PyErr_Occurred())
            return -1;
        element->end = write_uint(element->header, number);
        return 0;
    }
    if (PyUnicode_Check(value)) {
        element->text = PyUnicode_AsUTF8AndSize(value, &element->size);
        if (element->text == NULL)
            return -1;
    } else {
        if (PyObject_GetBuffer(value, &element->held, PyBUF_SIMPLE) < 0)
            return -1;
        element->size = element->held.len;
    }
    if ((uint64_t)element->size > UINT32_MAX) {
        PyBuffer_Release(&element->held);
        PyErr_SetString(PyExc_ValueError, "msgpack holds up to 4 GiB");
        return -1;
    }
    element->end = element->text != NULL ? write_str_header(element->header, element->size)
                                         : write_bin_header(element->header, element->size);
    return 0;
}

static PyObject *join(const Element *elements, Py_ssize_t count) {
    Py_ssize_t size = 1;
    for (Py_ssize_t i = 0; i < count; i++)
        size += elements[i].end - elements[i].header + elements[i].size;
    PyObject *body = PyBytes_FromStringAndSize(NULL, size);
    if (body == NULL)
        return NULL;
    char *at = PyBytes_AS_STRING(body);
    *at++ = (char)(0x90 | count);
    for (Py_ssize_t i = 0; i < count; i++) {
        const Element *each = &elements[i];
        size_t header = (size_t)(each->end - each->header);
        memcpy(at, each->header, header);
        at += header;
        if (each->size > 0)
            memcpy(at, each->text != NULL ? each->text : each->held.buf, (size_t)each->size);
        at += each->size;
    }
    return body;
}

// encode() of Python.
static PyObject *message_encode(PyObject *Py_UNUSED(module), PyObject *const *args,
                                Py_ssize_t count) {
    Element elements[MAX_ELEMENTS];
    if (count > MAX_ELEMENTS)
        return PyErr_Format(PyExc_TypeError, "a message has up to %d elements, not %zd",
                            MAX_ELEMENTS, count);
    Py_ssize_t looked = 0;
    while (looked < count && look_at(args[looked], &elements[looked]) == 0)
        looked++;
    PyObject *body = looked == count ? join(elements, count) : NULL;
    for (Py_ssize_t i = 0; i < looked; i++)
        PyBuffer_Release(&elements[i].held);
    return body;
}

// decode_task() of Python.
static PyObject *message_decode_task(PyObject *Py_UNUSED(module), PyObject *const *args,
                                     Py_ssize_t count) {
    Py_buffer body;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "decode_task() takes 2 arguments, not %zd", count);
    int descriptor = PyObject_IsTrue(args[1]);
    if (descriptor < 0 || PyObject_GetBuffer(args[0], &body, PyBUF_SIMPLE) < 0)
        return NULL;
    const unsigned char *at = body.buf;
    PyObject *task = decode_task((Bytes){at, at + body.len}, descriptor);
    PyBuffer_Release(&body);
    return task;
}
