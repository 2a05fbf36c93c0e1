// SPDX-License-Identifier: MIT

package bridge_test

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"gopool/bridge"
)

// This file is the scripted worker that uses its lane (child_linux_test.go has the other one).

const (
	childLane = 5 // the lane's memory
	childBell = 6 // the collector's eventfd
)

type laneChild struct {
	*child
	lane *bridge.LaneSide
	last uint64 // the task that it did last
}

func init() {
	starts["lane"] = func(c *child) {
		l := &laneChild{child: c, lane: must(bridge.NewLaneSide(childLane))}
		c.send(must(bridge.AppendHello(nil, &bridge.Hello{Version: bridge.Version,
			PID: uint32(os.Getpid()), Flags: bridge.FlagLane})))
		c.ready()
		l.serve()
	}
}

// serve does tasks until it is stopped.
func (c *laneChild) serve() {
	for {
		m, payload, more := c.nextAnywhere()
		if !more {
			os.Exit(0)
		}
		switch bad := laneOffences[payload]; {
		case payload == "hold, exit":
			c.hold("holding")
			os.Exit(3)
		case payload == "answer, then exit":
			c.answer(&m, payload)
			os.Exit(5)
		case payload == "hold":
			c.hold("holding")
			c.answer(&m, payload)
		case bad != nil:
			bad(c, &m)
			c.send(bridge.AppendDozing(nil)) // so that somebody looks
			c.hold("offended")               // until it is killed
			os.Exit(97)
		default:
			c.answer(&m, payload)
		}
	}
}

// nextAnywhere is the next task, by the lane or the socket; false: stop.
func (c *laneChild) nextAnywhere() (m bridge.Task, payload string, more bool) {
	for {
		if _, body, ok := c.lane.Claim(); ok {
			frame := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
			decoded := must(bridge.DecodeToWorker(append(frame, body...), false))
			return decoded.Task, string(decoded.Task.Payload), true
		}
		sleep, tell := c.lane.Doze()
		if !sleep {
			continue
		}
		if tell {
			c.send(bridge.AppendDozing(nil))
		}
		m, payload, more = c.next()
		c.lane.Rouse()
		if m.ID != 0 || !more {
			return m, payload, more
		}
	}
}

// answer leaves the ordinary result of a task in the lane.
func (c *laneChild) answer(m *bridge.Task, payload string) {
	text := must(json.Marshal(reply{os.Getpid(), payload, string(m.Definition)}))
	c.publish(c.done(m.ID, string(text), 0))
	c.last = m.ID
}

func (c *laneChild) publish(frame []byte) {
	room, tell := c.lane.Publish(frame)
	if !room {
		c.send(frame)
	}
	if tell {
		must(unix.Write(childBell, []byte{1, 0, 0, 0, 0, 0, 0, 0}))
	}
}

// laneOffences are what a worker must not do to its lane.
var laneOffences = map[string]func(*laneChild, *bridge.Task){
	"count of bytes beyond the ring": func(c *laneChild, _ *bridge.Task) {
		atomic.AddUint64(c.lane.Word(bridge.LaneCommit), 1<<20)
	},
	"count of bytes goes back": func(c *laneChild, _ *bridge.Task) {
		atomic.AddUint64(c.lane.Word(bridge.LaneCommit), 1<<64-8)
	},
	"odd count of bytes": func(c *laneChild, _ *bridge.Task) {
		atomic.AddUint64(c.lane.Word(bridge.LaneCommit), 1)
	},
	"outcome longer than the ring": func(c *laneChild, m *bridge.Task) {
		at := *c.lane.Word(bridge.LaneCommit)
		ring := c.lane.Memory()[bridge.LaneOutcomes:]
		binary.LittleEndian.PutUint32(ring[at+16:], 1<<30)
		atomic.AddUint64(c.lane.Word(bridge.LaneCommit), 64)
	},
	"outcome is garbage": func(c *laneChild, _ *bridge.Task) {
		c.publish([]byte{4, 0, 0, 0, 0xc1, 0xff, 0xff, 0xff})
	},
	"outcome is no outcome": func(c *laneChild, _ *bridge.Task) {
		c.publish(bridge.AppendReady(nil))
	},
	"outcome with a region": func(c *laneChild, m *bridge.Task) { c.publish(c.done(m.ID, "", 8)) },
	"stranger's outcome":    func(c *laneChild, _ *bridge.Task) { c.publish(c.done(4711, "x", 0)) },
	"outcome of the last":   func(c *laneChild, _ *bridge.Task) { c.publish(c.done(c.last, "x", 0)) },
	"garbage by the socket": func(c *laneChild, _ *bridge.Task) { c.send([]byte{1, 0, 0, 0, 0xc1}) },

	// Its bell is not rung: who reads the message looks into the lane before that.
	"answers, then a message too large": func(c *laneChild, m *bridge.Task) {
		c.lane.Publish(c.done(m.ID, "x", 0))
		c.send(make([]byte, bridge.MaxFrame+1))
	},

	// These do their task: the counts are looked at when it is settled.
	"claims what there is not": func(c *laneChild, m *bridge.Task) { c.count(m, 5) },
	"gives back what it claimed": func(c *laneChild, m *bridge.Task) {
		c.count(m, 1<<64-1)
	},
	"puts a task in": func(c *laneChild, m *bridge.Task) { c.count(m, 1<<32) },
}

// count changes the lane's counts of tasks and does the task.
func (c *laneChild) count(m *bridge.Task, delta uint64) {
	atomic.AddUint64(c.lane.Word(bridge.LaneQueue), delta)
	c.answer(m, "offended")
}
