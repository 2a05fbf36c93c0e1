// SPDX-License-Identifier: MIT

// Package bridge speaks with the Python workers: the wire protocol, the sockets and lanes that it
// goes by, and the poller that waits for all of them (stations 8 and 10 of the data flow).
//
// # What
//
// PROTOCOL.md is the normative text. frame.go has the limits and the length field, message.go the
// messages, codec.go writes them and decode.go reads them. Their twins in Python are
// gopool/_worker/frame.py and message.py; testdata/frames/frames.json is read by the tests of
// both languages. lane_linux.go is a worker's lane, lanes_linux.go how a pool looks into all of them.
//
// # Flow
//
// AppendTask appends a whole frame to memory of the caller's, which sends it as one message of a
// SOCK_SEQPACKET socket. Of what a worker sends, each received message is one frame, which
// DecodeFromWorker turns into a FromWorker.
//
// # Who owns what
//
// A frame belongs to whoever received it. Payload and Definition in a decoded message are parts of
// that frame and change with it: whoever keeps one beyond the next receive copies it. Texts are
// copies. The Append functions copy what they are given and keep none of it.
//
// # Lock order
//
// The codec has no lock and may be used by any number of goroutines. PoolWires.lanes comes before a
// link's listening, and that before Pool.mu. Beyond these, the locks of
// Events, Functions and Outcomes are innermost: nothing else is locked while one is held.
//
// # Guarantees
//
// Decoders accept what PROTOCOL.md allows and nothing else, never panic, and allocate no memory on
// the word of a length field. Append functions write no frame that a decoder would refuse.
//
// # Assumptions
//
// One received message is one whole frame: the socket keeps message boundaries. int has 64 bits. The
// machine is little endian.
//
// # Sources
//
// https://github.com/msgpack/msgpack/blob/master/spec.md, unix(7), seqpacket in socket(2).
package bridge
