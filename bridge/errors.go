// SPDX-License-Identifier: MIT

package bridge

import "fmt"

// FrameTooLargeError is returned by the Append functions when a message does not fit into one
// frame. Nothing was sent and the worker is unharmed; the caller can put the payload into a
// region, or a function's definition into the payload (function 0).
type FrameTooLargeError struct {
	Size int // bytes the frame would have had, at least
	Max  int // bytes allowed
}

func (e *FrameTooLargeError) Error() string {
	return fmt.Sprintf("bridge: frame of %d bytes exceeds the limit of %d", e.Size, e.Max)
}

// ProtocolError is returned by the decoders for a frame that breaks PROTOCOL.md, and by the
// Append functions for a message that would. The peer that sent such a frame can't be trusted
// any more: its worker is to be replaced; other workers are not touched.
type ProtocolError struct {
	Kind   Kind   // kind of the message, 0 where it was not reached
	Offset int    // bytes from the beginning of the frame to what is wrong
	Reason string // one of the texts listed in PROTOCOL.md, where a decoder found it
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("bridge: message of kind %d breaks the protocol at byte %d: %s",
		e.Kind, e.Offset, e.Reason)
}

// VersionError is returned by DecodeFromWorker for a Hello of another protocol version. Every
// worker of the pool would say the same, so the pool is broken: two installations are mixed.
type VersionError struct {
	Have uint32 // what the worker speaks
	Want uint32 // what this side speaks
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("bridge: worker speaks protocol version %d, version %d is needed",
		e.Have, e.Want)
}
