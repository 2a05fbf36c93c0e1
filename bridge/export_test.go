// SPDX-License-Identifier: MIT

package bridge

// What the tests of this package see beyond its public names.
const (
	RecordHeader = recordHeader
	PadRecord    = padRecord
	MaxOverflow  = maxOverflow
	MaxRegions   = maxRegions
)

// Send and Receive are the two system calls of a worker's socket.
var (
	Send    = send
	Receive = receive
	OOBSize = oobSize
)
