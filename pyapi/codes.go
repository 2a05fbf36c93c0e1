// SPDX-License-Identifier: MIT

package pyapi

import (
	"errors"

	"gopool/bridge"
	"gopool/gopool"
)

// Codes are the negative results of this package; the table of exceptions in
// python/gopool/_core.py is their twin. They never change their meaning.
const (
	codeClosed        = -10 // the pool takes no task any more
	codeTerminated    = -11 // the pool was terminated
	codeTooLarge      = -30 // a frame would be larger than the protocol allows
	codeUnknownHandle = -40 // no such pool, worker, process or staging area
	codeBadArgument   = -41 // a number is out of its range
	codeSystem        = -50 // the operating system refused; nothing was changed
)

// Codes returns the number of codes, Code the i-th: the test that none is without an exception
// walks them.
func Codes() int { return len(allCodes) }

// Code returns the i-th code, or codeBadArgument.
func Code(i int) int {
	if i < 0 || i >= len(allCodes) {
		return codeBadArgument
	}
	return allCodes[i]
}

var allCodes = []int{codeClosed, codeTerminated, codeTooLarge, codeUnknownHandle, codeBadArgument,
	codeSystem}

func codeOf(err error) int {
	var large *bridge.FrameTooLargeError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, gopool.ErrPoolClosed):
		return codeClosed
	case errors.Is(err, gopool.ErrPoolTerminated):
		return codeTerminated
	case errors.Is(err, gopool.ErrUnknownWorker), errors.Is(err, gopool.ErrUnknownProcess),
		errors.Is(err, errUnknownHandle):
		return codeUnknownHandle
	case errors.As(err, &large):
		return codeTooLarge
	}
	return codeSystem
}
