// SPDX-License-Identifier: MIT

package bridge

import (
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMappingOf(t *testing.T) {
	const maps = "" +
		"1000-3000 r--p 00000000 fe:00 18710                      /usr/bin/program\n" +
		"c000000000-c000400000 rw-p 00000000 00:00 0 \n" +
		"c000400000-c004000000 ---p 00000000 00:00 0 \n" +
		"7f0000000000-7f0000001000 rw-s 00000000 00:01 0 \n"
	for _, c := range []struct {
		name        string
		address     uintptr
		first, size uintptr
		found       bool
	}{
		{"the first byte", 0xc000000000, 0xc000000000, 0x400000, true},
		{"the last byte", 0xc0003fffff, 0xc000000000, 0x400000, true},
		{"a file", 0x1000, 0, 0, false},
		{"shared memory", 0x7f0000000000, 0, 0, false},
		{"nothing", 0x4000, 0, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, size, err := mappingOf(strings.NewReader(maps), c.address)
			if !c.found {
				assert.ErrorIs(t, err, errNoHeap)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.first, first)
			assert.Equal(t, c.size, size)
		})
	}
}

func TestMappingOfWhatIsNoMap(t *testing.T) {
	_, _, err := mappingOf(strings.NewReader("no map\n"), 1)
	assert.ErrorContains(t, err, "/proc/self/maps")
}

func TestRegionHoldsTheHeap(t *testing.T) {
	h, err := NewHeap()
	require.NoError(t, err)
	first, size, ok := h.Region()
	require.True(t, ok)
	assert.LessOrEqual(t, first, uintptr(unsafe.Pointer(h)))
	assert.Greater(t, first+size, uintptr(unsafe.Pointer(h)))
}

func TestNoRegionWhereAnotherHandlerIsOnTop(t *testing.T) {
	h, err := NewHeap()
	require.NoError(t, err)
	h.handlers[0]++ // as if the handler of now were another's
	_, _, ok := h.Region()
	assert.False(t, ok)
}

func TestHandlerOf(t *testing.T) {
	handler, err := handlerOf(unix.SIGSEGV)
	require.NoError(t, err)
	assert.Greater(t, handler, uintptr(1), "Go handles it")
	_, err = handlerOf(unix.Signal(65))
	assert.ErrorIs(t, err, unix.EINVAL)
}
