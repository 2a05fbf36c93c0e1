// SPDX-License-Identifier: MIT

package bridge

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Heap is the memory that Go's allocator has mapped when it is looked up. A forked child never
// enters this Go, so it needs none of it, and a fork that leaves it out copies a few hundred page
// table entries less; above all, this process's pages stay writable, where otherwise each would
// be copied once it is written after the fork.
type Heap struct {
	handlers [len(faultSignals)]uintptr // what Go's runtime has installed

	mu          sync.Mutex
	found       bool    // its mapping was looked for
	first, size uintptr // 0 where it is not to be had
}

// faultSignals are those for which a handler may be installed on top of Go's that calls Go's in
// turn, as faulthandler's does. Twin: _HANDLED in python/gopool/_heap.py.
var faultSignals = [...]unix.Signal{unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV}

// errNoHeap: the mapping that holds the heap is not what it is expected to be.
var errNoHeap = errors.New("bridge: Go's heap is not in an anonymous mapping of its own")

// NewHeap notes which handlers faults have now: to be called before anybody else can have installed
// one after Go. The heap is looked up when it is first asked for, since that takes a millisecond,
// which the first pool of a process would wait for.
func NewHeap() (*Heap, error) {
	h := &Heap{}
	for i, s := range faultSignals {
		var err error
		if h.handlers[i], err = handlerOf(s); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// find looks the heap up in /proc/self/maps, once. mu is held.
func (h *Heap) find() bool {
	if !h.found {
		h.found = true
		maps, err := os.Open("/proc/self/maps")
		if err != nil {
			return false
		}
		defer func() { _ = maps.Close() }()
		h.first, h.size, _ = mappingOf(maps, uintptr(unsafe.Pointer(h)))
	}
	return h.size > 0
}

// mappingOf finds the private anonymous mapping that holds an address, in the form of
// /proc/pid/maps.
func mappingOf(maps io.Reader, address uintptr) (first, size uintptr, err error) {
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var start, end uintptr
		var rights, offset, device string
		var inode uint64
		_, err := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %d",
			&start, &end, &rights, &offset, &device, &inode)
		if err != nil {
			return 0, 0, fmt.Errorf("bridge: /proc/self/maps: %w", err)
		}
		if start <= address && address < end {
			if inode != 0 || !strings.HasSuffix(rights, "p") {
				return 0, 0, errNoHeap
			}
			return start, end - start, nil
		}
	}
	return 0, 0, errors.Join(errNoHeap, lines.Err())
}

// Region is the memory to be left out of forks, as memory that reads as zero; false: none, since a
// handler of somebody else's would hand faults on to Go's.
func (h *Heap) Region() (first, size uintptr, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, s := range faultSignals {
		if handler, err := handlerOf(s); err != nil || handler != h.handlers[i] {
			return 0, 0, false
		}
	}
	if !h.find() {
		return 0, 0, false
	}
	return h.first, h.size, true
}

// kernelAction is struct sigaction as the system call has it, on every Linux that Go knows but mips.
type kernelAction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// handlerOf is the address of a signal's handler; 0 is the default, 1 ignores it.
func handlerOf(s unix.Signal) (uintptr, error) {
	var action kernelAction
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), 0,
		uintptr(unsafe.Pointer(&action)), unsafe.Sizeof(action.mask), 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("bridge: rt_sigaction of %v: %w", s, errno)
	}
	return action.handler, nil
}
