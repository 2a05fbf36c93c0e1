// SPDX-License-Identifier: MIT

package pyapi_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"gopool/bridge"
	"gopool/gopool"
	"gopool/pyapi"
)

// TestCodes expects every code to be negative, to be there once, and to be none of the small
// negative numbers that are ordinary results.
func TestCodes(t *testing.T) {
	seen := make(map[int]bool)
	for i := range pyapi.Codes() {
		code := pyapi.Code(i)
		assert.LessOrEqual(t, code, -10)
		assert.False(t, seen[code], "code %d is there twice", code)
		seen[code] = true
	}
	for _, code := range []int{pyapi.CodeClosed, pyapi.CodeTerminated, pyapi.CodeTooLarge,
		pyapi.CodeUnknownHandle, pyapi.CodeBadArgument, pyapi.CodeSystem} {
		assert.True(t, seen[code], "code %d is not listed", code)
	}
	for _, i := range []int{-1, pyapi.Codes(), 1 << 40} {
		assert.Equal(t, pyapi.CodeBadArgument, pyapi.Code(i))
	}
}

// TestCodeOf expects each error to become its code, also behind other words.
func TestCodeOf(t *testing.T) {
	tests := []struct {
		err  error
		want int
	}{
		{nil, 0},
		{gopool.ErrPoolClosed, pyapi.CodeClosed},
		{gopool.ErrPoolTerminated, pyapi.CodeTerminated},
		{gopool.ErrUnknownWorker, pyapi.CodeUnknownHandle},
		{gopool.ErrUnknownProcess, pyapi.CodeUnknownHandle},
		{&bridge.FrameTooLargeError{Size: 2, Max: 1}, pyapi.CodeTooLarge},
		{unix.EMFILE, pyapi.CodeSystem},
		{errors.New("else"), pyapi.CodeSystem},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, pyapi.CodeOf(tt.err), "%v", tt.err)
		if tt.err != nil {
			assert.Equal(t, tt.want, pyapi.CodeOf(fmt.Errorf("while testing: %w", tt.err)))
		}
	}
}
