// SPDX-License-Identifier: MIT

package bridge

import (
	"os"
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

func TestHeapIsHiddenAndShown(t *testing.T) {
	h, err := NewHeap()
	require.NoError(t, err)
	require.True(t, h.Hide())
	assert.LessOrEqual(t, h.first, uintptr(unsafe.Pointer(h)))
	assert.True(t, hasFlag(t, h, "wf"))
	h.Show()
	h.Show()
	assert.False(t, hasFlag(t, h, "wf"))
}

func TestHeapStaysWhereAnotherHandlerIsOnTop(t *testing.T) {
	h, err := NewHeap()
	require.NoError(t, err)
	h.handlers[0]++ // as if the handler of now were another's
	assert.False(t, h.Hide())
	require.True(t, h.find())
	assert.False(t, hasFlag(t, h, "wf"))
}

func TestHandlerOf(t *testing.T) {
	handler, err := handlerOf(unix.SIGSEGV)
	require.NoError(t, err)
	assert.Greater(t, handler, uintptr(1), "Go handles it")
	_, err = handlerOf(unix.Signal(65))
	assert.ErrorIs(t, err, unix.EINVAL)
}

// hasFlag looks into /proc/self/smaps for a flag of the mapping that holds the heap's first byte.
func hasFlag(t *testing.T, h *Heap, flag string) bool {
	text, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	inside := false
	for line := range strings.SplitSeq(string(text), "\n") {
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return strings.Contains(flags, " "+flag)
		}
		if first, _, err := mappingOf(strings.NewReader(line), h.first); err == nil {
			inside = first <= h.first
		}
	}
	t.Fatal("the mapping is not in smaps")
	return false
}
