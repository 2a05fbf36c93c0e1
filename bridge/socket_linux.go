// SPDX-License-Identifier: MIT

package bridge

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"gopool/gopool"
)

// oobSize holds the control message of one descriptor, and room to see that there were more.
var oobSize = unix.CmsgSpace(4 * 4)

// receive reads one message without blocking and without allocating.
//
// It returns the bytes (a part of buf) and the descriptor that came along, -1 or lostFD. A second
// descriptor is against the protocol: all are closed, and the message is refused. ok is false
// where no message waits. Errors: *ProtocolError (also where the other side closed its half, which
// reads as an empty message), or the system's.
//
// RawSyscall is right here because MSG_DONTWAIT never blocks, and it saves the scheduler's part
// of an ordinary call.
func receive(fd int, buf, oob []byte, flags uintptr) (frame []byte, passed int, ok bool, err error) {
	iov := unix.Iovec{Base: &buf[0], Len: uint64(len(buf))}
	for {
		msg := unix.Msghdr{Iov: &iov, Iovlen: 1, Controllen: uint64(len(oob))}
		if len(oob) > 0 {
			msg.Control = &oob[0]
		}
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd),
			uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC|flags)
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return nil, -1, false, nil
		default:
			return nil, -1, false, fmt.Errorf("bridge: recvmsg: %w", errno)
		}
		passed, err = passedFD(oob[:msg.Controllen])
		if err == nil && passed < 0 && msg.Flags&unix.MSG_CTRUNC != 0 {
			passed = lostFD
		}
		if err == nil && n == 0 {
			err = &ProtocolError{Reason: "empty message, or the worker closed its end"}
		}
		if err == nil && msg.Flags&unix.MSG_TRUNC != 0 {
			err = &ProtocolError{Reason: "message larger than a frame"}
		}
		if err != nil {
			closeFD(passed)
			return nil, -1, false, err
		}
		return buf[:n], passed, true, nil
	}
}

// passedFD takes the one descriptor out of a control message; -1: none.
func passedFD(oob []byte) (int, error) {
	if len(oob) == 0 {
		return -1, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, &ProtocolError{Reason: "unreadable control message"}
	}
	fds := make([]int, 0, 1)
	for i := range messages {
		rights, err := unix.ParseUnixRights(&messages[i])
		if err == nil {
			fds = append(fds, rights...)
		}
	}
	switch len(fds) {
	case 0:
		return -1, nil
	case 1:
		return fds[0], nil
	}
	for _, fd := range fds {
		closeFD(fd)
	}
	return -1, &ProtocolError{Reason: fmt.Sprintf("%d descriptors with one message", len(fds))}
}

// send writes one message without blocking; rights is the control message or nil.
//
// Errors: gopool.ErrLinkFull where the socket's buffer is full, else the system's.
func send(fd int, frame, rights []byte) error {
	iov := unix.Iovec{Base: &frame[0], Len: uint64(len(frame))}
	msg := unix.Msghdr{Iov: &iov, Iovlen: 1}
	if len(rights) > 0 {
		msg.Control, msg.Controllen = &rights[0], uint64(len(rights))
	}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd),
			uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.ETOOMANYREFS:
			return gopool.ErrLinkFull
		default:
			return fmt.Errorf("bridge: sendmsg: %w", errno)
		}
	}
}

// lostFD stands for a descriptor that came with a message and could not be received, because this
// process may open no more.
const lostFD = -2

// closeFD closes a descriptor that came with a message; -1 is none.
func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}
