// SPDX-License-Identifier: MIT

package bridge

import "golang.org/x/sys/unix"

// SignalTree is being written elsewhere.
func SignalTree(pid, pidfd int, sig unix.Signal) error {
	return unix.PidfdSendSignal(pidfd, sig, nil, 0)
}
