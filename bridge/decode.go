// SPDX-License-Identifier: MIT

package bridge

import (
	"io"
	"sync"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// input is the reader behind a msgpack decoder. It has ReadByte and UnreadByte so that the
// decoder adds no buffer of its own, which makes off the exact place.
type input struct {
	b   []byte
	off int
}

func (in *input) Read(p []byte) (int, error) {
	if in.off == len(in.b) {
		return 0, io.EOF
	}
	n := copy(p, in.b[in.off:])
	in.off += n
	return n, nil
}

func (in *input) ReadByte() (byte, error) {
	if in.off == len(in.b) {
		return 0, io.EOF
	}
	in.off++
	return in.b[in.off-1], nil
}

func (in *input) UnreadByte() error {
	in.off--
	return nil
}

// decoder walks one frame from left to right and keeps the first thing that is wrong; after that
// every read returns a zero. The msgpack package takes several types for one another (nil as 0, str
// as bin, negative as huge), so the code of each element is looked at before it is read.
type decoder struct {
	in     input
	dec    *msgpack.Decoder
	kind   Kind
	kindAt int
	region bool // a payload was a region
	err    *ProtocolError
}

var decoders = sync.Pool{New: func() any {
	d := &decoder{}
	d.dec = msgpack.NewDecoder(&d.in)
	return d
}}

func (d *decoder) fail(offset int, reason string) {
	if d.err == nil {
		d.err = &ProtocolError{Kind: d.kind, Offset: offset, Reason: reason}
	}
}

// peek returns the code of the next element; false once something is wrong.
func (d *decoder) peek() (byte, bool) {
	if d.err == nil && d.in.off == len(d.in.b) {
		d.fail(d.in.off, reasonTruncated)
	}
	if d.err != nil {
		return 0, false
	}
	return d.in.b[d.in.off], true
}

// array reads the number of elements of the message.
func (d *decoder) array() int {
	at := d.in.off
	code, ok := d.peek()
	if !ok {
		return 0
	}
	if !msgpcode.IsFixedArray(code) && code != msgpcode.Array16 && code != msgpcode.Array32 {
		d.fail(at, reasonNotArray)
		return 0
	}
	n, err := d.dec.DecodeArrayLen()
	if err != nil {
		d.fail(at, reasonTruncated)
	}
	return n
}

func isSigned(code byte) bool {
	return code >= msgpcode.Int8 && code <= msgpcode.Int64 || code >= msgpcode.NegFixedNumLow
}

func isInt(code byte) bool {
	return code <= msgpcode.PosFixedNumHigh ||
		code >= msgpcode.Uint8 && code <= msgpcode.Uint64 || isSigned(code)
}

// uint reads an integer of any msgpack format whose value is in [low, high].
func (d *decoder) uint(low, high uint64) uint64 {
	at := d.in.off
	code, ok := d.peek()
	if !ok {
		return 0
	}
	if !isInt(code) {
		d.fail(at, reasonType)
		return 0
	}
	v, negative, err := uint64(0), false, error(nil)
	if isSigned(code) {
		var s int64
		s, err = d.dec.DecodeInt64()
		v, negative = uint64(s), s < 0
	} else {
		v, err = d.dec.DecodeUint64()
	}
	switch {
	case err != nil:
		d.fail(at, reasonTruncated)
	case negative || v < low || v > high:
		d.fail(at, reasonRange)
	default:
		return v
	}
	return 0
}

// span reads the length of a bin or str that starts at offset at, and returns its bytes as a part
// of the frame. The length is compared with what is left, so nothing is ever allocated for it.
func (d *decoder) span(at int) []byte {
	n, err := d.dec.DecodeBytesLen()
	if err != nil || n < 0 || n > len(d.in.b)-d.in.off {
		d.fail(at, reasonTruncated)
		return nil
	}
	end := d.in.off + n
	b := d.in.b[d.in.off:end:end]
	d.in.off = end
	return b
}

func (d *decoder) payload() (b []byte, region uint64) {
	at := d.in.off
	code, ok := d.peek()
	switch {
	case !ok:
	case msgpcode.IsBin(code):
		b = d.span(at)
	case isInt(code):
		d.region = true
		region = d.uint(1, maxRegion)
	default:
		d.fail(at, reasonType)
	}
	return b, region
}

func (d *decoder) definition(function uint32) []byte {
	at := d.in.off
	code, ok := d.peek()
	switch {
	case !ok:
	case code == msgpcode.Nil:
		d.in.off++
	case msgpcode.IsBin(code):
		b := d.span(at)
		if d.err == nil && (len(b) == 0 || function == 0) {
			d.fail(at, reasonRange)
		}
		return b
	default:
		d.fail(at, reasonType)
	}
	return nil
}

func (d *decoder) text(least int) string {
	at := d.in.off
	code, ok := d.peek()
	if !ok {
		return ""
	}
	if !msgpcode.IsString(code) {
		d.fail(at, reasonType)
		return ""
	}
	b := d.span(at)
	switch {
	case d.err != nil:
	case !utf8.Valid(b):
		d.fail(at, reasonUTF8)
	case len(b) < least:
		d.fail(at, reasonRange)
	default:
		return string(b)
	}
	return ""
}

// open checks the frame and reads what every message begins with.
func open(frame []byte) (d *decoder, elements int) {
	d = decoders.Get().(*decoder)
	d.in = input{b: frame, off: HeaderSize}
	d.kind, d.region, d.err = 0, false, checkFrame(frame)
	elements = d.array()
	if d.err == nil && elements == 0 {
		d.fail(HeaderSize, reasonArity)
	}
	d.kindAt = d.in.off
	d.kind = Kind(d.uint(0, 1<<64-1))
	return d, elements
}

func (d *decoder) arity(have, want int) {
	if have != want {
		d.fail(HeaderSize, reasonArity)
	}
}

// close ends the walk and returns its error.
func (d *decoder) close(descriptor bool) error {
	if d.in.off < len(d.in.b) {
		d.fail(d.in.off, reasonTrailing)
	}
	switch {
	case d.region && !descriptor:
		d.fail(len(d.in.b), reasonNoDescriptor)
	case descriptor && !d.region:
		d.fail(len(d.in.b), reasonHasDescriptor)
	}
	err := d.err
	d.in, d.err = input{}, nil
	decoders.Put(d)
	if err != nil {
		return err
	}
	return nil
}

// DecodeFromWorker decodes a frame that a worker sent. descriptor says whether exactly one
// descriptor came with it.
//
// Done.Payload is a part of frame: it is valid until the caller reuses that memory. Texts are
// copies. A Done costs no allocation.
//
// Errors: *ProtocolError, *VersionError; the message means nothing then.
func DecodeFromWorker(frame []byte, descriptor bool) (m FromWorker, err error) {
	d, elements := open(frame)
	m.Kind = d.kind
	switch m.Kind {
	case KindDone:
		d.arity(elements, 4)
		m.Done.ID = d.uint(1, 1<<64-1)
		m.Done.Status = Status(d.uint(0, uint64(StatusEncoding)))
		m.Done.Payload, m.Done.RegionSize = d.payload()
	case KindHello:
		if elements < 2 {
			d.arity(elements, 4)
		}
		m.Hello.Version = uint32(d.uint(0, 1<<32-1))
		if d.err == nil && m.Hello.Version != Version {
			// What follows in a Hello of another version is not ours to judge.
			_ = d.close(descriptor)
			return m, &VersionError{Have: m.Hello.Version, Want: Version}
		}
		d.arity(elements, 4)
		m.Hello.PID = uint32(d.uint(1, maxPID))
		m.Hello.Flags = uint32(d.uint(0, 1<<32-1))
	case KindReady, KindDozing:
		d.arity(elements, 1)
	case KindFailed:
		d.arity(elements, 3)
		m.Failed.Stage = d.text(1)
		m.Failed.Text = d.text(0)
	default:
		d.fail(d.kindAt, reasonUnknown)
	}
	return m, d.close(descriptor)
}

// DecodeToWorker decodes a frame that was meant for a worker. descriptor says whether exactly
// one descriptor came with it. Task.Payload and Task.Definition are parts of frame.
//
// Errors: *ProtocolError; the message means nothing then.
func DecodeToWorker(frame []byte, descriptor bool) (m ToWorker, err error) {
	d, elements := open(frame)
	m.Kind = d.kind
	switch m.Kind {
	case KindTask:
		d.arity(elements, 6)
		m.Task.ID = d.uint(1, 1<<64-1)
		m.Task.Mode = Mode(d.uint(0, uint64(ModeStarmap)))
		m.Task.Function = uint32(d.uint(0, 1<<32-1))
		m.Task.Payload, m.Task.RegionSize = d.payload()
		m.Task.Definition = d.definition(m.Task.Function)
	case KindStop, KindLook:
		d.arity(elements, 1)
	default:
		d.fail(d.kindAt, reasonUnknown)
	}
	return m, d.close(descriptor)
}
