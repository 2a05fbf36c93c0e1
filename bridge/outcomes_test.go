// SPDX-License-Identifier: MIT

package bridge_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gopool/bridge"
	"gopool/gopool"
)

// record is an outcome record as the collector reads it (PROTOCOL.md, section 9).
type record struct {
	job, index uint64
	regionSize uint64
	region     int // -1: none
	taskRegion int // -1: none
	status     gopool.Status
	payload    []byte
}

// failure decodes the payload of a failure that Go made.
func (r *record) failure(t *testing.T) (pid int, code any, started bool, text string) {
	t.Helper()
	var f struct {
		PID, Code    int32
		Flags        uint32
		Milliseconds int64
	}
	n, err := binary.Decode(r.payload, binary.LittleEndian, &f)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, f.Milliseconds, int64(0))
	assert.Less(t, f.Flags, uint32(4))
	if f.Flags&1 != 0 {
		code = int(f.Code)
	}
	return int(f.PID), code, f.Flags&2 != 0, string(r.payload[n:])
}

// errDrained is what wait returns where Take says that nothing will come.
var errDrained = errors.New("drained")

// exitedState is what Take says once when a worker has ended.
const exitedState = -2

// collector reads outcome records, as the thread of that name does in Python.
type collector struct {
	mem      []byte
	outcomes interface{ Take(consumed int) int }
	wake     int
	at       int // place in the ring
	read     int // bytes read since the last Take
	left     int // bytes that may be read yet
	pads     int // records of padding seen
	events   [][]byte
}

// next returns the oldest record without waiting, or what Take said instead.
func (c *collector) next() (r record, state int) {
	for {
		if c.left == 0 {
			taken := c.outcomes.Take(c.read)
			c.left, c.read = 0, 0
			if taken <= 0 {
				return record{}, taken
			}
			c.at, c.left = taken>>32, taken&math.MaxUint32
		}
		here := c.mem[c.at : c.at+c.left] // a record never goes beyond: this would panic
		size := int(binary.LittleEndian.Uint32(here))
		pad := binary.LittleEndian.Uint32(here[4:]) == bridge.PadRecord
		here = here[:size]
		c.at, c.read, c.left = (c.at+size)%len(c.mem), c.read+size, c.left-size
		if pad {
			c.pads++
			continue
		}
		word := func(at int) uint64 { return binary.LittleEndian.Uint64(here[at:]) }
		n := int(binary.LittleEndian.Uint32(here[4:]))
		payload := bytes.Clone(here[bridge.RecordHeader : bridge.RecordHeader+n])
		if gopool.Status(word(48)) == bridge.StatusEvent {
			c.events = append(c.events, payload)
			continue
		}
		return record{job: word(8), index: word(16), regionSize: word(24), region: int(word(32)),
			taskRegion: int(word(40)), status: gopool.Status(word(48)), payload: payload}, size
	}
}

// wait returns the oldest record, asleep on the eventfd until there is one.
func (c *collector) wait() (record, error) {
	for {
		r, state := c.next()
		switch {
		case state > 0:
			return r, nil
		case state == exitedState:
			continue
		case state < 0:
			return r, errDrained
		}
		if err := awaitReadable(c.wake); err != nil {
			return r, err
		}
		var counter [8]byte
		_, _ = unix.Read(c.wake, counter[:])
	}
}

// indices reads everything that is there.
func (c *collector) indices() (indices []uint64, state int) {
	for {
		r, state := c.next()
		if state <= 0 {
			return indices, state
		}
		indices = append(indices, r.index)
	}
}

func newOutcomes(t *testing.T, size int) (*bridge.Outcomes, *collector) {
	t.Helper()
	mem, wake := make([]byte, size), newEventFD(t)
	q := bridge.NewOutcomes(mem, wake)
	return q, &collector{mem: mem, outcomes: q, wake: wake}
}

// value is an outcome without regions.
func value(index uint64, payload []byte) *gopool.Outcome {
	return &gopool.Outcome{Index: index, Payload: payload, Region: gopool.NoRegion, TaskRegion: -1}
}

// withRegion is an outcome whose result lies in a region.
func withRegion(index uint64) *gopool.Outcome {
	return &gopool.Outcome{Index: index, Region: gopool.Region{FD: 7, Size: 1}, TaskRegion: -1}
}

func size(payload int) int { return (bridge.RecordHeader + payload + 7) / 8 * 8 }

func upTo(n uint64) []uint64 {
	numbers := make([]uint64, n)
	for i := range numbers {
		numbers[i] = uint64(i)
	}
	return numbers
}

// TestRecords expects every part of an outcome to arrive as the table in PROTOCOL.md says.
func TestRecords(t *testing.T) {
	lost := gopool.Failure{PID: 7, Exit: gopool.ExitStatus{Code: -9, Known: true}, Started: true,
		RanFor: 1500 * time.Millisecond, Text: "why"}
	unknown := gopool.Failure{PID: 8}
	tests := []struct {
		name string
		in   gopool.Outcome
		want record
	}{
		{"value", gopool.Outcome{Job: 1, Index: 2, Payload: []byte("x"), Region: gopool.NoRegion,
			TaskRegion: -1},
			record{job: 1, index: 2, region: -1, taskRegion: -1, payload: []byte("x")}},
		{"largest numbers", gopool.Outcome{Job: 1<<64 - 1, Index: 1<<64 - 2,
			Status: gopool.StatusEncoding, Region: gopool.Region{FD: 1<<31 - 1, Size: 1<<63 - 1},
			TaskRegion: 1<<31 - 2},
			record{job: 1<<64 - 1, index: 1<<64 - 2, status: gopool.StatusEncoding,
				region: 1<<31 - 1, regionSize: 1<<63 - 1, taskRegion: 1<<31 - 2}},
		{"empty payload", gopool.Outcome{Status: gopool.StatusError, TaskRegion: 5},
			record{status: gopool.StatusError, region: -1, taskRegion: 5}},
		{"descriptor 0", gopool.Outcome{Region: gopool.Region{FD: 0, Size: 9}, TaskRegion: 0},
			record{region: 0, regionSize: 9, taskRegion: 0}},
		{"the zero region is none", gopool.Outcome{TaskRegion: -1},
			record{region: -1, taskRegion: -1}},
		{"lost", gopool.Outcome{Status: gopool.StatusLost, Failure: &lost, TaskRegion: -1},
			record{status: gopool.StatusLost, region: -1, taskRegion: -1,
				payload: pack(t, "why", int32(7), int32(-9), uint32(3), int64(1500))}},
		{"broken", gopool.Outcome{Status: gopool.StatusBroken, Failure: &unknown, TaskRegion: -1},
			record{status: gopool.StatusBroken, region: -1, taskRegion: -1,
				payload: pack(t, "", int32(8), int32(0), uint32(0), int64(0))}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, c := newOutcomes(t, 4096)
			q.Deliver(&tt.in)
			got, used := c.next()
			if len(got.payload) == 0 {
				got.payload = nil
			}
			assert.Equal(t, tt.want, got)
			assert.Equal(t, size(len(tt.want.payload)), used)
			_, state := c.next()
			assert.Zero(t, state)
		})
	}
}

// pack writes numbers of fixed size one after the other, and a text.
func pack(t *testing.T, text string, numbers ...any) []byte {
	t.Helper()
	var data []byte
	for _, number := range numbers {
		var err error
		data, err = binary.Append(data, binary.LittleEndian, number)
		require.NoError(t, err)
	}
	return append(data, text...)
}

// TestRingEnd expects a record to lie in one piece whatever is left before the ring's end: behind
// padding at the beginning, where it does not fit exactly.
func TestRingEnd(t *testing.T) {
	const ringSize = 1024
	for _, payload := range []int{0, 1, 7, 8, 9, 63, 100} {
		need := size(payload)
		for left := 8; left <= need+8; left += 8 {
			t.Run(fmt.Sprintf("%d bytes with %d left", need, left), func(t *testing.T) {
				q, c := newOutcomes(t, ringSize)
				q.Deliver(value(0, make([]byte, ringSize-left-bridge.RecordHeader)))
				_, state := c.next()
				require.Equal(t, ringSize-left, state)
				_, state = c.next()
				require.Zero(t, state)
				want := bytes.Repeat([]byte{0xAB}, payload)
				q.Deliver(value(1, want))
				got, used := c.next()
				assert.Equal(t, need, used)
				assert.Equal(t, uint64(1), got.index)
				assert.True(t, bytes.Equal(want, got.payload))
				wrapped := left < need
				assert.Equal(t, wrapped, c.pads == 1)
				if wrapped {
					assert.Equal(t, need, c.at)
				}
			})
		}
	}
}

// TestRingIsFilledWhole expects the last byte of the ring to be used, and none that was not read
// to be written over.
func TestRingIsFilledWhole(t *testing.T) {
	const ringSize, each = 640, 64
	q, c := newOutcomes(t, ringSize)
	for i := range uint64(ringSize/each + 1) {
		q.Deliver(value(i, make([]byte, each-bridge.RecordHeader)))
	}
	assert.Equal(t, ringSize, q.Take(0), "the eleventh waits beside the ring")
	_, state := c.next()
	require.Equal(t, each, state)
	indices, _ := c.indices()
	assert.Equal(t, upTo(11)[1:], indices)
}

// TestOverflow expects outcomes that don't fit to keep their order, also behind smaller ones that
// would, and to have been copied, since the payload is the receiver's memory.
func TestOverflow(t *testing.T) {
	tests := []struct {
		name     string
		payloads []int
	}{
		{"equal", []int{100, 100, 100, 100, 100, 100, 100, 100, 100}},
		{"a small one behind a large one", []int{200, 200, 300, 8, 8, 8}},
		{"each as large as the ring", []int{456, 456, 456}},
		{"padding before each", []int{300, 300, 300, 300}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, c := newOutcomes(t, 512)
			buf := make([]byte, 512)
			for i, n := range tt.payloads {
				payload := buf[:n]
				for at := range payload {
					payload[at] = byte(i + 1)
				}
				q.Deliver(value(uint64(i), payload))
			}
			for i, n := range tt.payloads {
				r, state := c.next()
				require.Positive(t, state, "outcome %d", i)
				assert.Equal(t, uint64(i), r.index)
				assert.Equal(t, bytes.Repeat([]byte{byte(i + 1)}, n), r.payload)
			}
			q.Deliver(value(99, nil))
			r, _ := c.next()
			assert.Equal(t, uint64(99), r.index, "the ring is used again")
		})
	}
}

// TestWakeUps expects the eventfd to be written when, and only when, the collector was told that
// there is nothing: a missing wake-up is a hang, a needless one costs as much as a short task.
func TestWakeUps(t *testing.T) {
	type step struct {
		act  string
		want int
	}
	deliver, drained, poke := step{act: "deliver"}, step{act: "drained"}, step{act: "poke"}
	take := func(want int) step { return step{"take", want} }
	woken := func(want int) step { return step{"woken", want} }
	one := size(0)
	tests := []struct {
		name  string
		steps []step
	}{
		{"before the first look", []step{deliver, woken(0), take(one)}},
		{"asleep", []step{take(0), deliver, woken(1), take(one), take(0)}},
		{"once for several", []step{take(0), deliver, deliver, woken(1), take(2 * one)}},
		{"not while it reads", []step{deliver, take(one), deliver, woken(0), take(one)}},
		{"again after it slept again", []step{take(0), deliver, woken(1), take(one), take(0),
			deliver, woken(1)}},
		{"poked while asleep", []step{take(0), poke, woken(1), take(exitedState), woken(0), take(0),
			deliver, woken(1)}},
		{"poked while awake", []step{deliver, poke, poke, woken(0), take(exitedState), take(one),
			take(0)}},
		{"poked and drained", []step{poke, drained, take(exitedState), take(-1)}},
		{"drained while asleep", []step{take(0), drained, woken(1), take(-1), take(-1), woken(0)}},
		{"drained while awake", []step{deliver, drained, woken(0), take(one), take(-1)}},
		{"drained before the first look", []step{drained, woken(0), take(-1)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, c := newOutcomes(t, 1024)
			consumed := 0
			for i, s := range tt.steps {
				switch s.act {
				case "deliver":
					q.Deliver(value(0, nil))
				case "drained":
					q.Drained()
				case "poke":
					q.Poke()
				case "take":
					got := q.Take(consumed)
					if consumed = max(got, 0) & math.MaxUint32; got > 0 {
						got = consumed
					}
					require.Equal(t, s.want, got, "step %d", i)
				case "woken":
					require.Equal(t, s.want, rings(t, c.wake), "step %d", i)
				}
			}
		})
	}
}

// TestDrainedComesLast expects -1 only after everything was read, overflow included.
func TestDrainedComesLast(t *testing.T) {
	q, c := newOutcomes(t, 512)
	for i := range uint64(20) {
		q.Deliver(value(i, make([]byte, 100)))
	}
	q.Drained()
	indices, state := c.indices()
	assert.Equal(t, upTo(20), indices)
	assert.Equal(t, -1, state)
}

// pauses counts the calls of PauseIfFull's two functions.
type pauses struct{ paused, resumed int }

func (p *pauses) ask(q *bridge.Outcomes) bool {
	return q.PauseIfFull(func() { p.paused++ }, func() { p.resumed++ })
}

// TestPauseIfFull expects workers to wait once too many bytes, or too many regions, were not read,
// and each to go on exactly once as soon as there are fewer.
func TestPauseIfFull(t *testing.T) {
	const payload = 1 << 20
	large := make([]byte, payload)
	tests := []struct {
		name    string
		outcome func(i uint64) *gopool.Outcome
		limit   int // outcomes that make it full, beside one that lies in the ring
	}{
		{"by bytes", func(i uint64) *gopool.Outcome { return value(i, large) },
			bridge.MaxOverflow/payload + 1},
		{"by regions", withRegion, bridge.MaxRegions},
		{"by the regions' memory", func(i uint64) *gopool.Outcome {
			o := withRegion(i)
			o.Region.Size = bridge.MaxMemory / 8
			return o
		}, 8},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, c := newOutcomes(t, payload+4096)
			var p pauses
			for i := range uint64(tt.limit) {
				require.False(t, p.ask(q), "after %d outcomes", i)
				q.Deliver(tt.outcome(i))
			}
			require.Zero(t, p)
			require.True(t, p.ask(q))
			require.True(t, p.ask(q))
			require.Equal(t, pauses{paused: 2}, p)
			require.Positive(t, q.Take(0))
			require.Equal(t, pauses{paused: 2}, p, "nothing was read")
			_, state := c.next()
			require.Positive(t, state)
			require.Positive(t, q.Take(state))
			c.read, c.left = 0, 0
			assert.Equal(t, pauses{paused: 2, resumed: 2}, p)
			assert.False(t, p.ask(q))
			indices, _ := c.indices()
			assert.Len(t, indices, tt.limit-1)
			assert.Equal(t, pauses{paused: 2, resumed: 2}, p)
		})
	}
}

// TestResumeMayAsk expects Take to call resume with nothing locked: the poller, which resume wakes,
// asks PauseIfFull at once.
func TestResumeMayAsk(t *testing.T) {
	q, c := newOutcomes(t, 1<<16)
	for i := range uint64(bridge.MaxRegions) {
		q.Deliver(withRegion(i))
	}
	asked := false
	require.True(t, q.PauseIfFull(func() {}, func() { asked = !q.PauseIfFull(nil, nil) }))
	indices, _ := c.indices()
	assert.Equal(t, upTo(bridge.MaxRegions), indices)
	assert.True(t, asked)
}

// TestOutcomesConcurrently expects random payloads to come out in order and unharmed in another
// goroutine, whatever the size of the ring.
func TestOutcomesConcurrently(t *testing.T) {
	for _, ringSize := range []int{512, 4096, 65536} {
		t.Run(fmt.Sprintf("ring of %d", ringSize), func(t *testing.T) {
			const count = 3000
			q, c := newOutcomes(t, ringSize)
			// Both sides draw the same numbers from their own generator.
			draw := func(r *rand.Rand) (length int, fill byte, region bool) {
				return r.IntN(ringSize/2 - bridge.RecordHeader), byte(r.Uint32()), r.IntN(50) == 0
			}
			go func() {
				r := rand.New(rand.NewPCG(1, uint64(ringSize)))
				buf := make([]byte, ringSize)
				for i := range uint64(count) {
					length, fill, region := draw(r)
					payload := buf[:length] // one memory for all, as the poller has
					for at := range payload {
						payload[at] = fill
					}
					o := value(i, payload)
					if region {
						o.Region = gopool.Region{FD: 3, Size: 8}
					}
					q.Deliver(o)
				}
				q.Drained()
			}()
			r := rand.New(rand.NewPCG(1, uint64(ringSize)))
			for i := range uint64(count) {
				got, err := c.wait()
				require.NoError(t, err)
				length, fill, region := draw(r)
				require.Equal(t, i, got.index)
				require.True(t, bytes.Equal(bytes.Repeat([]byte{fill}, length), got.payload))
				require.Equal(t, region, got.region >= 0)
			}
			_, err := c.wait()
			assert.ErrorIs(t, err, errDrained)
		})
	}
}

// TestTell expects an event between two outcomes, with all that Python reads.
func TestTell(t *testing.T) {
	q, c := newOutcomes(t, 4096)
	q.Deliver(&gopool.Outcome{Job: 1, TaskRegion: -1})
	q.Tell(&gopool.Event{Kind: gopool.EventRetry, PID: 7, Job: 3, Index: 4, HasTask: true,
		Attempt: 2, RanFor: 1500 * time.Millisecond, Text: "why"})
	q.Tell(&gopool.Event{Kind: gopool.EventBroken})
	q.Deliver(&gopool.Outcome{Job: 2, TaskRegion: -1})
	for _, job := range []uint64{1, 2} {
		r, err := c.wait()
		require.NoError(t, err)
		assert.Equal(t, job, r.job)
	}
	assert.Equal(t, [][]byte{
		pack(t, "why", uint32(1), int32(7), uint32(1), uint32(2), uint64(3), uint64(4), 1.5),
		pack(t, "", uint32(4), int32(0), uint32(0), uint32(0), uint64(0), uint64(0), 0.0),
	}, c.events)
}

// A program may close the eventfd, and open a file under its number: that one is not written to.
func TestSignalToAFile(t *testing.T) {
	guardDescriptors(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	defer file.Close()
	q := bridge.NewOutcomes(make([]byte, 4096), int(file.Fd()))
	require.Zero(t, q.Take(0))
	q.Deliver(&gopool.Outcome{Job: 1, TaskRegion: -1})
	require.Positive(t, q.Take(0))
	info, err := file.Stat()
	require.NoError(t, err)
	assert.Zero(t, info.Size())
}
