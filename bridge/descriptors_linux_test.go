// SPDX-License-Identifier: MIT

package bridge_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for an event that must come: far longer than it ever takes.
const patience = 20 * time.Second

// openDescriptors lists what this process has open, by number and by what it leads to. The
// runtime's own poller is left out: it appears whenever a file is first waited for.
func openDescriptors(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	open := make(map[string]string)
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil { // the listing's own descriptor is closed already
			open[entry.Name()] = target
		}
	}
	return open
}

// guardDescriptors fails the test where, after everything that it cleans up, other descriptors
// are open than now. To be called first.
func guardDescriptors(t *testing.T) {
	t.Helper()
	// The runtime opens its poller at the first use of a pipe and keeps it.
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, errors.Join(r.Close(), w.Close()))
	before := openDescriptors(t)
	t.Cleanup(func() {
		after := openDescriptors(t)
		leaked := maps.Clone(after)
		maps.DeleteFunc(leaked, func(fd, target string) bool { return before[fd] == target })
		assert.Empty(t, leaked, "descriptors that were not open before")
		assert.Len(t, after, len(before), "descriptors that are open no more")
	})
}

// closing closes a descriptor when the test ends.
func closing(t *testing.T, fd int) int {
	t.Helper()
	t.Cleanup(func() { assert.NoError(t, unix.Close(fd), "descriptor %d", fd) })
	return fd
}

func newEventFD(t *testing.T) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	require.NoError(t, err)
	return closing(t, fd)
}

// newPair makes a connected pair of sockets as a worker has.
func newPair(t *testing.T) (parent, child int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	return closing(t, pair[0]), closing(t, pair[1])
}

// newRegion makes a memfd with content; the caller closes it.
func newRegion(content string) (int, error) {
	fd, err := unix.MemfdCreate("region", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("making a region: %w", err)
	}
	_, err = unix.Pwrite(fd, []byte(content), 0)
	return fd, err
}

// readRegion reads the first size bytes of a region and closes it.
func readRegion(fd int, size uint64) (string, error) {
	buf := make([]byte, size)
	n, err := unix.Pread(fd, buf, 0)
	return string(buf[:max(n, 0)]), errors.Join(err, unix.Close(fd))
}

// ring makes an eventfd readable.
func ring(t *testing.T, fd int) {
	t.Helper()
	_, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	require.NoError(t, err)
}

// rings returns and clears the counter of an eventfd.
func rings(t *testing.T, fd int) int {
	t.Helper()
	var counter [8]byte
	_, err := unix.Read(fd, counter[:])
	if errors.Is(err, unix.EAGAIN) {
		return 0
	}
	require.NoError(t, err)
	return int(counter[0])
}

// awaitReadable returns once there is something to read.
func awaitReadable(fd int) error {
	deadline := time.Now().Add(patience)
	for {
		left := max(0, time.Until(deadline))
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(left.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("nothing came on descriptor %d within %v", fd, patience)
		default:
			return nil
		}
	}
}

// receives waits for a value on a channel.
func receives[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-c:
		return value
	case <-time.After(patience):
		require.FailNow(t, "timed out", "waiting for %s", what)
		panic("unreachable")
	}
}
