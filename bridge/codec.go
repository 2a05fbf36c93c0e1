// SPDX-License-Identifier: MIT

package bridge

import (
	"encoding/binary"
	"sync"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
)

// output is the writer behind a msgpack encoder. It never fails, so the encoder does not either.
type output struct{ b []byte }

func (o *output) Write(p []byte) (int, error) {
	o.b = append(o.b, p...)
	return len(p), nil
}

func (o *output) WriteByte(c byte) error {
	o.b = append(o.b, c)
	return nil
}

// encoder appends one frame to a slice of the caller's.
type encoder struct {
	out   output
	enc   *msgpack.Encoder
	start int
}

var encoders = sync.Pool{New: func() any {
	e := &encoder{}
	e.enc = msgpack.NewEncoder(&e.out)
	return e
}}

// beginFrame writes what every frame has: length (set by finish), array, kind.
func beginFrame(dst []byte, kind Kind, elements int) *encoder {
	e := encoders.Get().(*encoder)
	e.start = len(dst)
	e.out.b = append(dst, 0, 0, 0, 0)
	_ = e.enc.EncodeArrayLen(elements)
	e.uint(uint64(kind))
	return e
}

func (e *encoder) uint(v uint64) { _ = e.enc.EncodeUint(v) }

func (e *encoder) text(s string) { _ = e.enc.EncodeString(s) }

func (e *encoder) bin(b []byte) {
	_ = e.enc.EncodeBytesLen(len(b))
	e.out.b = append(e.out.b, b...)
}

func (e *encoder) payload(b []byte, region uint64) {
	if region != 0 {
		e.uint(region)
		return
	}
	e.bin(b)
}

func (e *encoder) finish() ([]byte, error) {
	b, start := e.out.b, e.start
	e.out.b = nil // the pool must not keep the caller's memory
	encoders.Put(e)
	size := len(b) - start
	if size > MaxFrame {
		return b[:start], &FrameTooLargeError{Size: size, Max: MaxFrame}
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(size-HeaderSize))
	return b, nil
}

// checkOutgoing refuses what can't become a legal frame before any of it is copied. bulk is the
// number of bytes in payloads and texts.
func checkOutgoing(kind Kind, bulk int, legal bool) error {
	if !legal {
		return &ProtocolError{Kind: kind, Offset: HeaderSize, Reason: reasonRange}
	}
	if bulk > MaxFrame {
		return &FrameTooLargeError{Size: bulk + HeaderSize, Max: MaxFrame}
	}
	return nil
}

// AppendTask appends a Task frame to dst.
//
// Errors: *FrameTooLargeError where it would exceed MaxFrame, *ProtocolError where a field is out
// of range or there is both a payload and a region; dst is returned as it came then.
func AppendTask(dst []byte, t *Task) ([]byte, error) {
	legal := t.ID != 0 && t.Mode <= ModeStarmap && t.RegionSize <= maxRegion &&
		(t.RegionSize == 0 || len(t.Payload) == 0) &&
		(t.Definition == nil || t.Function != 0 && len(t.Definition) > 0)
	if err := checkOutgoing(KindTask, len(t.Payload)+len(t.Definition), legal); err != nil {
		return dst, err
	}
	e := beginFrame(dst, KindTask, 6)
	e.uint(t.ID)
	e.uint(uint64(t.Mode))
	e.uint(uint64(t.Function))
	e.payload(t.Payload, t.RegionSize)
	if t.Definition == nil {
		_ = e.enc.EncodeNil()
	} else {
		e.bin(t.Definition)
	}
	return e.finish()
}

// AppendStop appends a Stop frame to dst.
func AppendStop(dst []byte) []byte {
	dst, _ = beginFrame(dst, KindStop, 1).finish()
	return dst
}

// AppendLook appends a Look frame to dst.
func AppendLook(dst []byte) []byte {
	dst, _ = beginFrame(dst, KindLook, 1).finish()
	return dst
}

// AppendDozing appends a Dozing frame to dst.
func AppendDozing(dst []byte) []byte {
	dst, _ = beginFrame(dst, KindDozing, 1).finish()
	return dst
}

// AppendHello appends a Hello frame to dst.
//
// Errors: *ProtocolError where the pid is out of range; dst is returned as it came then.
func AppendHello(dst []byte, h *Hello) ([]byte, error) {
	if err := checkOutgoing(KindHello, 0, h.PID >= 1 && h.PID <= maxPID); err != nil {
		return dst, err
	}
	e := beginFrame(dst, KindHello, 4)
	e.uint(uint64(h.Version))
	e.uint(uint64(h.PID))
	e.uint(uint64(h.Flags))
	return e.finish()
}

// AppendReady appends a Ready frame to dst.
func AppendReady(dst []byte) []byte {
	dst, _ = beginFrame(dst, KindReady, 1).finish()
	return dst
}

// AppendDone appends a Done frame to dst. Errors: as for AppendTask.
func AppendDone(dst []byte, d *Done) ([]byte, error) {
	legal := d.ID != 0 && d.Status <= StatusEncoding && d.RegionSize <= maxRegion &&
		(d.RegionSize == 0 || len(d.Payload) == 0)
	if err := checkOutgoing(KindDone, len(d.Payload), legal); err != nil {
		return dst, err
	}
	e := beginFrame(dst, KindDone, 4)
	e.uint(d.ID)
	e.uint(uint64(d.Status))
	e.payload(d.Payload, d.RegionSize)
	return e.finish()
}

// AppendFailed appends a Failed frame to dst. Errors: as for AppendTask; the texts must be UTF-8
// and the stage must not be empty.
func AppendFailed(dst []byte, f *Failed) ([]byte, error) {
	legal := f.Stage != "" && utf8.ValidString(f.Stage) && utf8.ValidString(f.Text)
	if err := checkOutgoing(KindFailed, len(f.Stage)+len(f.Text), legal); err != nil {
		return dst, err
	}
	e := beginFrame(dst, KindFailed, 3)
	e.text(f.Stage)
	e.text(f.Text)
	return e.finish()
}
