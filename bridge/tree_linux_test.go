// SPDX-License-Identifier: MIT

package bridge_test

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gopool/bridge"
)

// hold is a command of a tree's script that lasts until the test ends.
const hold = "cat <&3"

// grove is a tree of processes that a shell script makes. All of them have its standard output,
// so that its end of file is the end of the last, and all that last end with the test.
type grove struct {
	t      *testing.T
	cmd    *exec.Cmd
	output *bufio.Reader
	pid    int
	pidfd  int
	waited bool
}

func plant(t *testing.T, script string) *grove {
	t.Helper()
	guardDescriptors(t)
	held, release, err := os.Pipe()
	require.NoError(t, err)
	output, write, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, output.SetReadDeadline(time.Now().Add(patience)))
	g := &grove{t: t, cmd: exec.Command("sh", "-c", script), output: bufio.NewReader(output)}
	g.cmd.Stdout = write
	g.cmd.ExtraFiles = []*os.File{held}
	require.NoError(t, g.cmd.Start())
	require.NoError(t, errors.Join(held.Close(), write.Close()))
	g.pid = g.cmd.Process.Pid
	g.pidfd, err = unix.PidfdOpen(g.pid, 0)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, release.Close())
		if !g.waited {
			_ = g.cmd.Process.Kill()
			_ = g.cmd.Wait()
		}
		_, err := io.Copy(io.Discard, g.output)
		assert.NoError(t, err, "something goes on though the test is over")
		assert.NoError(t, errors.Join(output.Close(), unix.Close(g.pidfd)))
	})
	return g
}

// says waits for the next line of the script's.
func (g *grove) says() string {
	g.t.Helper()
	line, err := g.output.ReadString('\n')
	require.NoError(g.t, err)
	return strings.TrimSpace(line)
}

// expect waits for some lines, in any order.
func (g *grove) expect(lines ...string) {
	g.t.Helper()
	got := make([]string, len(lines))
	for i := range lines {
		got[i] = g.says()
	}
	assert.ElementsMatch(g.t, lines, got)
}

// gone waits for the end of the whole tree; what is still said is returned.
func (g *grove) gone() string {
	g.t.Helper()
	rest, err := io.ReadAll(g.output)
	require.NoError(g.t, err, "a process of the tree goes on")
	return string(rest)
}

// status reaps the root.
func (g *grove) status() syscall.WaitStatus {
	_ = g.cmd.Wait()
	g.waited = true
	return g.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// alive tells whether a number is a process's that has not ended.
func alive(t *testing.T, pid int) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	state, _, ok := bridge.ParseStat(string(text))
	require.True(t, ok)
	return state != 'Z' && state != 'X'
}

// Each script says "ready" once for each process that the test waits for.
var trees = []struct {
	name, script string
	ready        int
}{
	{"alone", "echo ready; exec " + hold, 1},
	{"two children", hold + " & " + hold + " & echo ready; wait", 1},
	{"three levels", "(" + hold + " & (" + hold + " & echo ready; wait) & echo ready; wait) & " +
		"echo ready; wait", 3},
	{"a child ends meanwhile", "(while :; do (exit 0) & wait; done) & echo ready; wait", 1},
	{"a child that is not reaped", "(exit 0) & " + hold + " & echo ready; exec " + hold, 1},
	{"a stopped child", "(echo ready; kill -STOP $(exec sh -c 'echo $PPID'); " + hold + ") & wait", 1},
	{"another session", "(exec setsid sh -c 'echo ready; " + hold + " & wait') & wait", 1},
	{"forks on and on", "i=0; while [ $i -lt 100 ]; do " + hold + " & i=$((i+1)); echo ready; done; " +
		"wait", 3},
	{"forks in depth", "f() { echo ready; if [ $1 -gt 0 ]; then (f $(($1-1))) & (f $(($1-1))) & " +
		hold + "; fi; }; f 5", 2},
	{"ignores SIGTERM", "trap '' TERM; (trap '' TERM; " + hold + ") & echo ready; wait", 1},
}

// TestSignalTree expects SIGKILL to reach all of a tree, whatever it is doing, found by the
// kernel's lists or without them, by number or by pidfd.
func TestSignalTree(t *testing.T) {
	for _, tt := range trees {
		for _, lists := range []bool{true, false} {
			t.Run(tt.name+map[bool]string{true: ", listed", false: ", scanned"}[lists], func(t *testing.T) {
				g := plant(t, tt.script)
				for range tt.ready {
					require.Equal(t, "ready", g.says())
				}
				pidfd := g.pidfd
				if lists {
					pidfd = -1
				}
				require.NoError(t, bridge.SignalTreeWithin(256, 64, lists, g.pid, pidfd, unix.SIGKILL))
				g.gone()
				assert.Equal(t, unix.SIGKILL, g.status().Signal())
			})
		}
	}
}

// TestSignalTreeTerminates expects handlers of SIGTERM to run, in stopped processes as well, and
// no parent to act on its child's end before its own handler.
func TestSignalTreeTerminates(t *testing.T) {
	g := plant(t, `
		(trap 'echo child; exit 0' TERM; echo ready; while :; do `+hold+`; done) &
		trap 'echo parent; exit 7' TERM
		echo ready; wait; echo "the child's end came first"`)
	g.expect("ready", "ready")
	require.NoError(t, bridge.SignalTree(g.pid, g.pidfd, unix.SIGTERM))
	g.expect("child", "parent")
	assert.Empty(t, g.gone())
	assert.Equal(t, 7, g.status().ExitStatus())
}

// TestSignalTreeIgnored expects a tree that ignores the signal to go on, not to stay stopped.
func TestSignalTreeIgnored(t *testing.T) {
	g := plant(t, `trap '' TERM; trap 'echo alive' USR1; echo ready
		while :; do `+hold+` & wait; done`)
	g.expect("ready")
	require.NoError(t, bridge.SignalTree(g.pid, g.pidfd, unix.SIGTERM))
	require.NoError(t, unix.Kill(g.pid, unix.SIGUSR1))
	g.expect("alive")
}

// TestSignalTreeRefuses expects processes that must not be signalled to be left alone.
func TestSignalTreeRefuses(t *testing.T) {
	guardDescriptors(t)
	for _, pid := range []int{-1, 0, 1, os.Getpid()} {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
			assert.ErrorIs(t, bridge.SignalTree(pid, -1, sig), unix.EINVAL, "process %d", pid)
		}
	}
}

// TestSignalTreeEnded expects a root that has ended to be an error, reaped or not.
func TestSignalTreeEnded(t *testing.T) {
	g := plant(t, "exit 3")
	require.NoError(t, awaitReadable(g.pidfd))
	assert.ErrorIs(t, bridge.SignalTree(g.pid, g.pidfd, unix.SIGKILL), unix.ESRCH)
	assert.ErrorIs(t, bridge.SignalTree(g.pid, -1, unix.SIGKILL), unix.ESRCH)
	assert.Equal(t, 3, g.status().ExitStatus())
	assert.ErrorIs(t, bridge.SignalTree(g.pid, g.pidfd, unix.SIGKILL), unix.ESRCH)
	assert.ErrorIs(t, bridge.SignalTree(g.pid, -1, unix.SIGKILL), unix.ESRCH)
}

// TestHasChildren expects children to count until they have ended, reaped or not.
func TestHasChildren(t *testing.T) {
	for script, want := range map[string]bool{
		"echo ready; exec " + hold:                                     false,
		hold + " & echo ready; wait":                                   true,
		"(exec 3<&-; echo ready) & exec " + hold:                       false,
		"(" + hold + " & echo ready; wait) & wait":                     true,
		"(echo ready; exec cat <&3 >&-) & " + hold + "; echo no; wait": true,
	} {
		g := plant(t, script)
		require.Equal(t, "ready", g.says())
		if !want { // the child has ended, or is about to
			require.Eventually(t, func() bool { return !bridge.HasChildren(g.pid, g.pidfd) }, patience,
				time.Millisecond, script)
			continue
		}
		assert.True(t, bridge.HasChildren(g.pid, g.pidfd), script)
	}
	assert.False(t, bridge.HasChildren(-1, -1))
}

// treeCaller is the script of a process that ends the tree it is in.
const treeCaller = "end the tree above"

func endTreeAbove() {
	check(bridge.SignalTree(os.Getppid(), -1, unix.SIGKILL))
	must(os.Stdout.WriteString("spared\n"))
	os.Exit(0)
}

// TestSignalTreeSparesItsCaller expects the caller to live though it is in the tree; others are
// ended. The caller is this binary, executed again below a shell.
func TestSignalTreeSparesItsCaller(t *testing.T) {
	t.Setenv(scriptVariable, treeCaller)
	g := plant(t, hold+` & `+os.Args[0]+` & wait`)
	assert.Equal(t, "spared", g.says())
	g.gone()
	assert.Equal(t, unix.SIGKILL, g.status().Signal())
}

// TestSignalTreeSparesOrphans expects a process whose parent has ended to be outside.
func TestSignalTreeSparesOrphans(t *testing.T) {
	g := plant(t, "(sh -c 'echo $$; "+hold+"; echo orphan' & ); echo ready; wait; "+hold)
	lines := []string{g.says(), g.says()}
	orphan := 0
	for _, line := range lines {
		if pid, err := strconv.Atoi(line); err == nil {
			orphan = pid
		}
	}
	require.NotZero(t, orphan, "%q", lines)
	require.NoError(t, bridge.SignalTree(g.pid, g.pidfd, unix.SIGKILL))
	require.NoError(t, awaitReadable(g.pidfd))
	assert.True(t, alive(t, orphan))
}

// TestSignalTreeBounds expects a tree that is too wide or too deep to be signalled as far as it
// was found, and the caller to be told.
func TestSignalTreeBounds(t *testing.T) {
	tests := []struct {
		name, script      string
		processes, rounds int
		want              error
	}{
		{"just fits", hold + "& " + hold + "& echo ready; wait", 3, 2, nil},
		{"too many", hold + "& " + hold + "& echo ready; wait", 2, 2, bridge.ErrTreeIncomplete},
		{"too deep", "(" + hold + "& echo ready; wait) & wait", 10, 1, bridge.ErrTreeIncomplete},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := plant(t, tt.script)
			g.expect("ready")
			err := bridge.SignalTreeWithin(tt.processes, tt.rounds, true, g.pid, g.pidfd, unix.SIGKILL)
			require.ErrorIs(t, err, tt.want)
			require.NoError(t, awaitReadable(g.pidfd))
			assert.Equal(t, unix.SIGKILL, g.status().Signal())
			if tt.want == nil {
				g.gone()
			}
		})
	}
}

// TestParseStat expects a process's name to be read over, whatever it looks like.
func TestParseStat(t *testing.T) {
	tests := []struct {
		text   string
		state  rune
		parent int
		ok     bool
	}{
		{"12 (cat) S 7 12 12 0", 'S', 7, true},
		{"12 (a) R 1 (b) T 9 12", 'T', 9, true},
		{"12 (new\nline) Z 1 2", 'Z', 1, true},
		{"12 () D 0", 'D', 0, true},
		{"12 (cat) S", 0, 0, false},
		{"12 (cat) S x", 'S', 0, false},
		{"", 0, 0, false},
	}
	for _, tt := range tests {
		state, parent, ok := bridge.ParseStat(tt.text)
		assert.Equal(t, tt.ok, ok, tt.text)
		assert.Equal(t, tt.state, state, tt.text)
		assert.Equal(t, tt.parent, parent, tt.text)
	}
}

func BenchmarkSignalTree(b *testing.B) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := bridge.SignalTree(cmd.Process.Pid, -1, unix.SIGCONT); err != nil {
			b.Fatal(err)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}
