// SPDX-License-Identifier: MIT

package pyapi

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestHandles expects numbers from 1 on that are never used again, and every other number to be
// unknown.
func TestHandles(t *testing.T) {
	var h handles[string]
	_, err := h.get(1)
	assert.ErrorIs(t, err, errUnknownHandle)
	assert.Equal(t, 1, h.put("a"))
	assert.Equal(t, 2, h.put("b"))
	assert.Equal(t, 2, h.len())
	got, err := h.take(1)
	assert.NoError(t, err)
	assert.Equal(t, "a", got)
	assert.Equal(t, 3, h.put("c"))
	tests := []struct {
		handle int
		want   string // "": unknown
	}{{-1, ""}, {0, ""}, {1, ""}, {2, "b"}, {3, "c"}, {4, ""}, {1 << 62, ""}}
	for _, tt := range tests {
		got, err := h.get(tt.handle)
		assert.Equal(t, tt.want, got, "handle %d", tt.handle)
		assert.Equal(t, tt.want == "", err == errUnknownHandle, "handle %d", tt.handle)
		if tt.want == "" {
			_, err = h.take(tt.handle)
			assert.ErrorIs(t, err, errUnknownHandle)
		}
	}
	assert.Equal(t, 2, h.len())
}

// TestHandlesConcurrently expects each handle to be taken by one caller only.
func TestHandlesConcurrently(t *testing.T) {
	const count = 500
	var h handles[int]
	for i := range count {
		h.put(i + 1)
	}
	var wait sync.WaitGroup
	var taken [count + 1][2]bool
	for caller := range 2 {
		wait.Go(func() {
			for handle := 1; handle <= count; handle++ {
				value, err := h.take(handle)
				taken[handle][caller] = err == nil && value == handle
			}
		})
	}
	wait.Wait()
	for handle := 1; handle <= count; handle++ {
		assert.NotEqual(t, taken[handle][0], taken[handle][1], "handle %d", handle)
	}
	assert.Zero(t, h.len())
}
