// SPDX-License-Identifier: MIT

package bridge

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of SignalTree, which is called with a pool's lock held. All are arbitrary; a process of
// the tree takes about 50 us.
const (
	treeProcesses = 256                   // more are not looked for
	treeRounds    = 64                    // levels below the root
	treeWait      = 10 * time.Millisecond // for processes to stand still, in all
	treePause     = 50 * time.Microsecond // between two looks at one
)

// ErrTreeIncomplete is returned by SignalTree where it could not see or reach the whole tree: what
// it found was sent the signal, the rest goes on.
var ErrTreeIncomplete = errors.New("bridge: part of a process tree was not reached")

// SignalTree sends a signal to a process and to everything below it.
//
// The tree is stopped from the root down (SIGSTOP), so that nothing in it starts another process
// unseen or ends and frees its number; then all are sent sig, and SIGCONT unless that is SIGKILL,
// so that handlers of SIGTERM run. Each is signalled through a pidfd opened while its parent stood
// still, hence never a stranger that has its number by now; nor is this process, or process 1.
// Needs no process group and no subreaper: the user's Ctrl-Z, terminal and orphans are untouched.
//
// Outside the tree is whatever has no living parent in it: a process whose parent ended before
// (a daemon that forks twice) is init's child, or a subreaper's. Also what becomes a member's
// child while the tree is being walked, because somebody else killed its parent.
//
// What was stopped before goes on as well. A parent that asks for stopped children (SIGCHLD without
// SA_NOCLDSTOP, WUNTRACED) is told of one.
//
// Takes a fraction of a millisecond for a process without children; it does not wait for the ends.
// It gives up looking for more beyond 256 processes, 64 levels, or 10 ms of waiting for processes
// to stand still (on a machine whose processors are all taken, or in an uninterruptible call): a
// process that did not stand still in time is signalled with the rest, and only a child that it
// forks in that very moment escapes. Where the kernel keeps no lists of children
// (CONFIG_PROC_CHILDREN) each level takes a look at every process of the machine.
//
// Args: the root's number; its pidfd, which stays the caller's, or -1.
//
// Errors: unix.ESRCH, the root has ended, and its children can't be found any more; unix.EINVAL,
// process 1 or this one; unix.EPERM; ErrTreeIncomplete. Of these the last alone means that signals
// were sent.
func SignalTree(pid, pidfd int, sig unix.Signal) error {
	return treeWalk{treeProcesses, treeRounds, listChildren}.signal(pid, pidfd, sig)
}

// treeWalk says how a tree is looked for.
type treeWalk struct {
	processes, rounds int
	list              childLister
}

// childLister returns, by parent's number, the children of some processes.
type childLister func(parents []*treeMember) (map[int][]int, error)

type treeMember struct {
	pid, fd int
	still   bool // all its threads had stopped before its children were listed
}

type processTree struct {
	treeWalk
	members  []*treeMember
	known    map[int]bool
	deadline time.Time
	failure  error // why part of it was not reached
}

func (w treeWalk) signal(pid, pidfd int, sig unix.Signal) error {
	if pid <= 1 || pid == os.Getpid() {
		return fmt.Errorf("bridge: ending the tree of process %d: %w", pid, unix.EINVAL)
	}
	if pidfd < 0 {
		var err error
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			return fmt.Errorf("bridge: pidfd_open of process %d: %w", pid, err)
		}
		defer closeFD(pidfd)
	}
	if hasEnded(pidfd) {
		return fmt.Errorf("bridge: ending the tree of process %d: %w", pid, unix.ESRCH)
	}
	t := &processTree{treeWalk: w, known: make(map[int]bool), deadline: time.Now().Add(treeWait)}
	if err := t.stop(pid, pidfd); err != nil {
		return fmt.Errorf("bridge: stopping process %d: %w", pid, err)
	}
	t.walk()
	t.send(sig)
	for _, m := range t.members[1:] {
		closeFD(m.fd)
	}
	return t.failure
}

// stop takes a process into the tree.
func (t *processTree) stop(pid, pidfd int) error {
	if err := unix.PidfdSendSignal(pidfd, unix.SIGSTOP, nil, 0); err != nil {
		return err
	}
	t.members = append(t.members, &treeMember{pid: pid, fd: pidfd})
	t.known[pid] = true
	return nil
}

// walk adds level after level, until a look at whoever may have new children finds none.
func (t *processTree) walk() {
	if !ownProc() {
		t.missed(errors.New("/proc is not mounted, or another namespace's"))
		return
	}
	for range t.rounds {
		level := t.settle()
		children, err := t.list(level)
		if err != nil {
			t.missed(err)
		}
		before := len(t.members)
		for _, parent := range level {
			for _, pid := range children[parent.pid] {
				t.adopt(parent, pid)
			}
		}
		if len(t.members) == before {
			return
		}
	}
	t.missed(fmt.Errorf("it is deeper than %d levels", t.rounds))
}

// settle returns the members whose children are not known for certain, once they stand still or
// the time is over. SIGSTOP has been sent, but a fork that had begun before it is still completed.
func (t *processTree) settle() []*treeMember {
	var level []*treeMember
	for _, m := range t.members {
		if m.still {
			continue
		}
		level = append(level, m)
		for m.still = standsStill(m.pid); !m.still && time.Now().Before(t.deadline); {
			pause := unix.NsecToTimespec(treePause.Nanoseconds())
			_ = unix.Nanosleep(&pause, nil) // a signal ends it early
			m.still = standsStill(m.pid)
		}
	}
	return level
}

// adopt stops a child and takes it into the tree, if it is one.
func (t *processTree) adopt(parent *treeMember, pid int) {
	if pid <= 1 || pid == os.Getpid() || t.known[pid] {
		return
	}
	if len(t.members) == t.processes {
		t.missed(fmt.Errorf("it has more than %d processes", t.processes))
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.missed(err)
		return
	}
	// The number may have been freed and given to a stranger before the pidfd was opened. No
	// stranger is a child of the parent, which can't fork now; and that the parent's number is
	// still the parent's is asked last.
	stat, ok := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	alive := unix.PidfdSendSignal(parent.fd, 0, nil, 0) == nil
	if !ok || stat.parent != parent.pid || !alive {
		closeFD(fd)
		return
	}
	if err := t.stop(pid, fd); err != nil {
		closeFD(fd)
		t.missed(err)
	}
}

// send sends the signal to all members, then lets them go on. It is pending in each before the
// first one runs: no parent acts on its child's end before it has its own signal.
func (t *processTree) send(sig unix.Signal) {
	for _, m := range t.members {
		t.missed(unix.PidfdSendSignal(m.fd, sig, nil, 0))
	}
	if sig == unix.SIGKILL {
		return
	}
	for _, m := range t.members {
		t.missed(unix.PidfdSendSignal(m.fd, unix.SIGCONT, nil, 0))
	}
}

// missed notes the first reason why part of the tree was not reached; what has ended is none.
func (t *processTree) missed(err error) {
	if err != nil && t.failure == nil && !errors.Is(err, unix.ESRCH) {
		t.failure = fmt.Errorf("%w: %w", ErrTreeIncomplete, err)
	}
}

// hasEnded tells whether a pidfd's process has, reaped or not.
func hasEnded(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLIN != 0
}

// ownProc tells whether /proc has the numbers that this process uses.
func ownProc() bool {
	self, err := os.Readlink("/proc/self")
	return err == nil && self == strconv.Itoa(os.Getpid())
}

// standsStill tells whether no thread of a process can fork: all have stopped or ended.
func standsStill(pid int) bool {
	for _, path := range threadsOf(pid) {
		if stat, ok := readStat(path + "/stat"); ok && !strings.ContainsRune("TtZX", stat.state) {
			return false
		}
	}
	return true
}

// threadsOf returns the folders of a process's threads; none where it has ended.
func threadsOf(pid int) []string {
	folder := fmt.Sprintf("/proc/%d/task", pid)
	entries, _ := os.ReadDir(folder)
	paths := make([]string, len(entries))
	for i, entry := range entries {
		paths[i] = folder + "/" + entry.Name()
	}
	return paths
}

// listChildren is the childLister of kernels that keep lists; each thread has its own.
func listChildren(parents []*treeMember) (map[int][]int, error) {
	children := make(map[int][]int)
	for _, parent := range parents {
		for _, thread := range threadsOf(parent.pid) {
			data, err := os.ReadFile(thread + "/children")
			if errors.Is(err, unix.ENOENT) && !hasEnded(parent.fd) && !threadEnded(thread) {
				return scanForChildren(parents)
			}
			if err != nil {
				continue
			}
			for _, field := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(field); err == nil {
					children[parent.pid] = append(children[parent.pid], pid)
				}
			}
		}
	}
	return children, nil
}

// hasChildren says whether a process has a child that has not ended. The process is not reaped yet, so
// its number is its own.
func hasChildren(pid, pidfd int) bool {
	children, _ := listChildren([]*treeMember{{pid: pid, fd: pidfd}})
	return slices.ContainsFunc(children[pid], func(child int) bool {
		stat, ok := readStat(fmt.Sprintf("/proc/%d/stat", child))
		return ok && stat.parent == pid && stat.state != 'Z' && stat.state != 'X'
	})
}

func threadEnded(path string) bool {
	_, err := os.Stat(path)
	return err != nil
}

// scanForChildren is the childLister of all kernels: it looks at every process.
func scanForChildren(parents []*treeMember) (map[int][]int, error) {
	wanted := make(map[int]bool)
	for _, parent := range parents {
		wanted[parent.pid] = true
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, ok := readStat("/proc/" + entry.Name() + "/stat")
		if ok && wanted[stat.parent] {
			children[stat.parent] = append(children[stat.parent], pid)
		}
	}
	return children, nil
}

// procStat is what a stat file of proc(5) says about a process or a thread.
type procStat struct {
	state  rune
	parent int
}

func readStat(path string) (procStat, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return procStat{}, false
	}
	return parseStat(string(data))
}

// parseStat reads "pid (name) state parent ...", where the name may hold anything, ") R 1" as well.
func parseStat(text string) (procStat, bool) {
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:])
	if len(fields) < 2 {
		return procStat{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	return procStat{state: rune(fields[0][0]), parent: parent}, err == nil
}
