// SPDX-License-Identifier: MIT

package bridge

import "encoding/binary"

// Twin: python/gopool/_worker/frame.py. Rules: PROTOCOL.md, section 2.

const (
	// MaxFrame is the largest frame in bytes, header included: a message well below what a
	// socket with the system's default buffer can hold (212,960 bytes).
	MaxFrame = 65536
	// HeaderSize is the length field before the body, in bytes.
	HeaderSize = 4
	// MaxInline is the largest payload in bytes that fits into every Task frame without a
	// definition and into every Done frame. The rest of such a frame takes 25 bytes at most;
	// 64 leaves room for later fields.
	MaxInline = MaxFrame - 64
)

// The texts of ProtocolError.Reason (PROTOCOL.md, section 6).
const (
	reasonShort         = "frame shorter than its header"
	reasonLarge         = "frame larger than the limit"
	reasonLength        = "length mismatch"
	reasonTruncated     = "truncated"
	reasonNotArray      = "not an array"
	reasonUnknown       = "unknown kind"
	reasonArity         = "wrong number of elements"
	reasonType          = "wrong type"
	reasonRange         = "out of range"
	reasonUTF8          = "not utf-8"
	reasonTrailing      = "trailing bytes"
	reasonNoDescriptor  = "region without descriptor"
	reasonHasDescriptor = "descriptor without region"
)

// checkFrame compares the length field with what was received.
func checkFrame(frame []byte) *ProtocolError {
	switch {
	case len(frame) < HeaderSize:
		return &ProtocolError{Reason: reasonShort}
	case len(frame) > MaxFrame:
		return &ProtocolError{Reason: reasonLarge}
	case uint64(binary.LittleEndian.Uint32(frame)) != uint64(len(frame)-HeaderSize):
		return &ProtocolError{Reason: reasonLength}
	}
	return nil
}
