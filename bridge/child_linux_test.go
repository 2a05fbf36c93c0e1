// SPDX-License-Identifier: MIT

package bridge_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"

	"golang.org/x/sys/unix"

	"gopool/bridge"
)

// This file is the worker: the test binary, executed again, speaks the protocol over an inherited
// socket and misbehaves as the test says. A start script says how it comes up; each task's payload
// names what it does with that task.

const (
	scriptVariable = "GOPOOL_TEST_SCRIPT" // holds the start script's name
	childSocket    = 3                    // the worker's end
	childControl   = 4                    // one word a message: to the test, and back to go on
)

// reply is the result of a task that the worker did.
type reply struct {
	PID        int
	Payload    string
	Definition string
}

type child struct {
	last uint64 // the task that it did last
}

// check ends the worker with a code that no test expects.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "scripted worker:", err)
		os.Exit(99)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

// send sends one message with the given descriptors.
func (c *child) send(frame []byte, fds ...int) {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	check(unix.Sendmsg(childSocket, frame, rights, nil, 0))
}

func (c *child) hello(version uint32) {
	c.send(must(bridge.AppendHello(nil, &bridge.Hello{Version: version,
		PID: uint32(os.Getpid())})))
}

func (c *child) ready() { c.send(bridge.AppendReady(nil)) }

// done frames the result of a task.
func (c *child) done(task uint64, payload string, region uint64) []byte {
	return must(bridge.AppendDone(nil, &bridge.Done{ID: task, Payload: []byte(payload),
		RegionSize: region}))
}

// hold tells the test that it is here and goes on when the test says so.
func (c *child) hold(word string) {
	check(unix.Sendmsg(childControl, []byte(word), nil, nil, 0))
	var buf [1]byte
	if n := must(unix.Read(childControl, buf[:])); n == 0 {
		os.Exit(98) // the test is over
	}
}

// next reads a task with its payload, wherever that lies; false: stop.
func (c *child) next() (m bridge.Task, payload string, more bool) {
	buf, oob := make([]byte, bridge.MaxFrame), make([]byte, bridge.OOBSize)
	n, oobn, _, _, err := unix.Recvmsg(childSocket, buf, oob, unix.MSG_CMSG_CLOEXEC)
	check(err)
	if n == 0 {
		os.Exit(98) // the test is over
	}
	decoded := must(bridge.DecodeToWorker(buf[:n], oobn > 0))
	switch decoded.Kind {
	case bridge.KindStop:
		return m, "", false
	case bridge.KindLook: // to a worker with a lane
		return m, "", true
	}
	m = decoded.Task
	if m.RegionSize == 0 {
		return m, string(m.Payload), true
	}
	messages := must(unix.ParseSocketControlMessage(oob[:oobn]))
	fds := must(unix.ParseUnixRights(&messages[0]))
	return m, must(readRegion(fds[0], m.RegionSize)), true
}

// answer sends the ordinary result of a task.
func (c *child) answer(m *bridge.Task, payload string) {
	text := must(json.Marshal(reply{os.Getpid(), payload, string(m.Definition)}))
	c.send(c.done(m.ID, string(text), 0))
	c.last = m.ID
}

// serve does tasks until it is stopped.
func (c *child) serve() {
	for {
		m, payload, more := c.next()
		if !more {
			os.Exit(0)
		}
		if act := deeds[payload]; act != nil {
			act(c, &m)
		} else if bad := offences[payload]; bad != nil {
			bad(c, &m)
			c.hold("offended") // until it is killed
			os.Exit(97)
		} else {
			c.answer(&m, payload)
		}
	}
}

// deeds are what a worker may do with a task. Any other payload is answered at once.
var deeds = map[string]func(*child, *bridge.Task){
	"hold": func(c *child, m *bridge.Task) {
		c.hold("holding")
		c.answer(m, "hold")
	},
	"answer, hold": func(c *child, m *bridge.Task) {
		c.answer(m, "answer, hold")
		c.hold("holding")
	},
	"answer, hold, exit": func(c *child, m *bridge.Task) {
		c.answer(m, "answer, hold, exit")
		c.hold("holding")
		os.Exit(3)
	},
	"answer, then exit": func(c *child, m *bridge.Task) {
		c.answer(m, "answer, then exit")
		os.Exit(5)
	},
	"hold, exit": func(c *child, _ *bridge.Task) {
		c.hold("holding")
		os.Exit(3)
	},
	"hold, die": func(c *child, _ *bridge.Task) {
		c.hold("holding")
		check(unix.Kill(os.Getpid(), unix.SIGKILL))
		select {}
	},
	"region": func(c *child, m *bridge.Task) { c.region(m) },
	"region, then exit": func(c *child, m *bridge.Task) {
		c.region(m)
		os.Exit(5)
	},
}

const regionText = "this lies in a region"

func (c *child) region(m *bridge.Task) {
	fd := must(newRegion(regionText))
	c.send(c.done(m.ID, "", uint64(len(regionText))), fd)
	check(unix.Close(fd))
	c.last = m.ID
}

// offences are what a worker must not do with a task.
var offences = map[string]func(*child, *bridge.Task){
	"shut its writing half down": func(*child, *bridge.Task) {
		check(unix.Shutdown(childSocket, unix.SHUT_WR))
	},
	"shut both halves down": func(*child, *bridge.Task) {
		check(unix.Shutdown(childSocket, unix.SHUT_RDWR))
	},
	"empty message": func(c *child, _ *bridge.Task) { c.send(nil) },
	"torn frame": func(c *child, m *bridge.Task) {
		frame := c.done(m.ID, "x", 0)
		c.send(frame[:len(frame)-1])
	},
	"cut header": func(c *child, m *bridge.Task) { c.send(c.done(m.ID, "x", 0)[:3]) },
	"oversize length": func(c *child, m *bridge.Task) {
		frame := c.done(m.ID, "x", 0)
		frame[3] = 0x7F
		c.send(frame)
	},
	"large message": func(c *child, m *bridge.Task) {
		c.send(append(c.done(m.ID, "x", 0), make([]byte, bridge.MaxFrame)...))
	},
	"unknown kind":  func(c *child, _ *bridge.Task) { c.send([]byte{2, 0, 0, 0, 0x91, 99}) },
	"parent's kind": func(c *child, _ *bridge.Task) { c.send(bridge.AppendStop(nil)) },
	"garbage": func(c *child, _ *bridge.Task) {
		c.send([]byte{12, 0, 0, 0, 0xc1, 0xff, 0xc1, 0xff, 0xc1, 0xff, 0xc1, 0xff, 1, 2, 3, 4})
	},
	"garbage, then done": func(c *child, m *bridge.Task) {
		c.send([]byte{1, 0, 0, 0, 0xc1})
		c.send(c.done(m.ID, "too late", 0))
	},
	"another done of the last": func(c *child, _ *bridge.Task) { c.send(c.done(c.last, "x", 0)) },
	"done of a stranger's":     func(c *child, _ *bridge.Task) { c.send(c.done(4711, "x", 0)) },
	"hello again":              func(c *child, _ *bridge.Task) { c.hello(bridge.Version) },
	"hello of version 9":       func(c *child, _ *bridge.Task) { c.hello(9) },
	"ready again":              func(c *child, _ *bridge.Task) { c.ready() },
	"region without descriptor": func(c *child, m *bridge.Task) {
		c.send(c.done(m.ID, "", 8))
	},
	"descriptor without region": func(c *child, m *bridge.Task) {
		c.send(c.done(m.ID, "x", 0), childControl)
	},
	"two descriptors": func(c *child, m *bridge.Task) {
		c.send(c.done(m.ID, "", 8), childControl, childControl)
	},
	"region and a stranger's task": func(c *child, _ *bridge.Task) {
		c.send(c.done(4711, "", 8), childControl)
	},
}

// starts are how a worker comes up.
var starts = map[string]func(*child){
	"ok": func(c *child) {
		c.hello(bridge.Version)
		c.ready()
	},
	"exit idle": func(c *child) {
		c.hello(bridge.Version)
		c.ready()
		c.hold("idle")
		os.Exit(6)
	},
	"ignore SIGTERM": func(c *child) {
		signal.Ignore(unix.SIGTERM)
		c.hello(bridge.Version)
		c.ready()
		c.hold("ignoring")
	},
	"exit at once":       func(*child) { os.Exit(7) },
	"version 9":          func(c *child) { c.hello(9); c.hold("") },
	"ready before hello": func(c *child) { c.ready(); c.hold("") },
	"task's done first":  func(c *child) { c.send(c.done(1, "x", 0)); c.hold("") },
	"hello twice": func(c *child) {
		c.hello(bridge.Version)
		c.hello(bridge.Version)
		c.hold("")
	},
	"initializer fails": func(c *child) {
		c.hello(bridge.Version)
		c.send(must(bridge.AppendFailed(nil, &bridge.Failed{Stage: "initializer",
			Text: "the traceback"})))
		os.Exit(1)
	},
	"ready twice, idle": func(c *child) {
		c.hello(bridge.Version)
		c.ready()
		c.hold("ready")
		c.ready()
		c.hold("")
	},
}

// runChild is main of the scripted worker.
func runChild(script string) {
	unix.CloseOnExec(childSocket)
	c := &child{}
	starts[script](c)
	c.serve()
	os.Exit(0)
}

// sortedNames are the keys of a table, for tests that walk it.
func sortedNames[T any](table map[string]T) []string {
	names := make([]string, 0, len(table))
	for name := range table {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
