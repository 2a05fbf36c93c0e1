// SPDX-License-Identifier: MIT

package bridge

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gopool/gopool"
)

// newLane makes a lane with both its sides.
func newLane(t testing.TB) (*lane, *LaneSide) {
	t.Helper()
	fd, err := NewLaneMemory()
	require.NoError(t, err)
	l, err := openLane(fd)
	require.NoError(t, err)
	side, err := NewLaneSide(fd)
	require.NoError(t, err)
	require.NoError(t, unix.Close(fd))
	t.Cleanup(func() { l.close(); side.close() })
	return l, side
}

// rounds is how often a raced test is repeated: millions where GOPOOL_CHAOS asks for the long form.
func rounds(short int) int {
	if os.Getenv("GOPOOL_CHAOS") != "" {
		return 100 * short
	}
	return short
}

// filled is a message's body that tells whether it is whole.
func filled(id, size int) []byte {
	return bytes.Repeat([]byte{byte(id*7 + size)}, size)
}

// TestLaneKeepsTasksWhole drives a lane at random: what is claimed is what was put in, in order,
// whatever was taken back in between, and the memory is used again for ever.
func TestLaneKeepsTasksWhole(t *testing.T) {
	full := 0
	for seed := range uint64(20) {
		l, side := newLane(t)
		rng := rand.New(rand.NewPCG(seed, 1))
		type task struct{ id, size int }
		var waiting, running []task
		for id := 1; id < 4000; id++ {
			size := rng.IntN(200)
			if rng.IntN(3) == 0 {
				size = rng.IntN(MaxLaneBody + 1)
			}
			switch err := l.put(gopool.TaskID(id), filled(id, size)); err {
			case nil:
				waiting = append(waiting, task{id, size})
			default:
				require.ErrorIs(t, err, gopool.ErrLinkFull)
				require.NotEmpty(t, append(waiting, running...), "an empty lane takes any task")
				full++
			}
			require.Equal(t, len(waiting), l.unclaimed())
			if rng.IntN(16) == 0 {
				keep := rng.IntN(len(waiting) + 1)
				ids := l.takeBack(keep)
				for i, task := range waiting[keep:] {
					require.Equal(t, gopool.TaskID(task.id), ids[i])
				}
				require.Len(t, ids, len(waiting)-keep)
				waiting = waiting[:keep]
			}
			for range rng.IntN(3) {
				if len(waiting) > 0 {
					got, body, ok := side.Claim()
					require.True(t, ok)
					require.Equal(t, uint64(waiting[0].id), got)
					require.True(t, bytes.Equal(filled(waiting[0].id, waiting[0].size), body))
					running, waiting = append(running, waiting[0]), waiting[1:]
				}
			}
			for range rng.IntN(3) {
				if len(running) > 0 {
					l.settled(gopool.TaskID(running[0].id))
					running = running[1:]
				}
			}
		}
		require.False(t, l.broken.Load())
	}
	assert.NotZero(t, full)
}

// TestLaneRacedSteals has one side claim and the other put in and take back at the same time: each
// task comes to exactly one of them.
func TestLaneRacedSteals(t *testing.T) {
	l, side := newLane(t)
	tasks := rounds(300_000)
	claimed := make([]uint8, tasks+1) // the worker's
	taken := make([]uint8, tasks+1)   // Go's
	var done atomic.Uint64            // claimed and settled: what Go learns from outcomes
	var last atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			finished := last.Load()
			id, body, ok := side.Claim()
			switch {
			case ok:
				if !bytes.Equal(body, filled(int(id), int(id)%64)) {
					t.Errorf("task %d came with another's message", id)
				}
				claimed[id]++
				done.Store(id)
			case finished:
				return
			default:
				runtime.Gosched()
			}
		}
	}()
	rng := rand.New(rand.NewPCG(3, 4))
	steals, settled := 0, uint64(0)
	settle := func() { // all up to the last that was claimed
		for until := done.Load(); settled < until; {
			settled++
			if taken[settled] == 0 {
				l.settled(gopool.TaskID(settled))
			}
		}
	}
	for id := 1; id <= tasks; {
		settle()
		if l.unclaimed() > 3 || l.put(gopool.TaskID(id), filled(id, id%64)) != nil {
			runtime.Gosched() // the worker's turn: few are left then, and both want the last one
			continue
		}
		id++
		if rng.IntN(3) == 0 {
			for _, back := range l.takeBack(rng.IntN(3)) {
				taken[back]++
				steals++
			}
		}
	}
	last.Store(true)
	<-ended
	settle()
	for id := 1; id <= tasks; id++ {
		require.Equal(t, uint8(1), claimed[id]+taken[id], "task %d", id)
	}
	assert.False(t, l.broken.Load())
	assert.NotZero(t, steals)
	assert.Less(t, steals, tasks, "both sides got some")
	t.Logf("%d tasks, %d taken back", tasks, steals)
}

// TestLaneNoLostWakeUp has a worker that sleeps whenever it finds nothing: each task reaches it.
func TestLaneNoLostWakeUp(t *testing.T) {
	l, side := newLane(t)
	tasks := rounds(50_000)
	looks := make(chan struct{}, tasks) // the socket
	did := make(chan uint64, 1)
	go func() {
		for range tasks {
			id, _, ok := side.Claim()
			for !ok {
				if sleep, _ := side.Doze(); sleep {
					<-looks
					side.Rouse()
				}
				id, _, ok = side.Claim()
			}
			did <- id
		}
	}()
	for id := 1; id <= tasks; id++ {
		require.NoError(t, l.put(gopool.TaskID(id), nil))
		if l.rouse() {
			looks <- struct{}{}
		}
		select {
		case got := <-did:
			require.Equal(t, uint64(id), got)
		case <-time.After(20 * time.Second):
			t.Fatalf("task %d was never seen", id)
		}
		l.settled(gopool.TaskID(id))
	}
}

// TestLaneOutcomes expects outcomes of all sizes to come out as they went in, while the ring is used
// again and again; one that finds no room is refused.
func TestLaneOutcomes(t *testing.T) {
	l, side := newLane(t)
	rng := rand.New(rand.NewPCG(5, 6))
	var sent [][]byte
	refused, told := 0, 0
	l.listen(listenCollector)
	for i := range 20_000 {
		frame := make([]byte, HeaderSize+rng.IntN(1<<rng.IntN(15)))
		for j := range frame[HeaderSize:] {
			frame[HeaderSize+j] = byte(i)
		}
		binary.LittleEndian.PutUint32(frame, uint32(len(frame)-HeaderSize))
		room, tell := side.Publish(frame)
		switch {
		case room:
			sent = append(sent, frame)
		default:
			refused++
		}
		if tell {
			told++
		}
		for range rng.IntN(3) {
			o, ok, err := l.peek()
			require.NoError(t, err)
			require.Equal(t, len(sent) > 0, ok)
			if ok {
				require.Equal(t, sent[0], o.frame)
				l.free(o.size)
				sent = sent[1:]
			}
		}
		require.Equal(t, len(sent) > 0, l.pending())
	}
	assert.NotZero(t, refused)
	assert.Equal(t, 1, told, "who wants to be told is told once")
}

// TestLaneCountsAreChecked expects counts of tasks that make no sense to be noticed by whatever looks
// at them, and nothing of the lane to be believed from then on.
func TestLaneCountsAreChecked(t *testing.T) {
	lies := map[string]func(queue uint64) uint64{
		"claimed more than there is": func(q uint64) uint64 { return q + 10 },
		"claimed fewer than before":  func(q uint64) uint64 { return q - 1 },
		"put one in":                 func(q uint64) uint64 { return q + 1<<32 },
		"took one back":              func(q uint64) uint64 { return q - 1<<32 },
		"all bits":                   func(uint64) uint64 { return 1<<64 - 1 },
		"nothing":                    func(uint64) uint64 { return 0 },
	}
	uses := map[string]func(*lane) bool{ // true: it says so
		"put":      func(l *lane) bool { return l.put(9, nil) == error(errLaneCount) },
		"takeBack": func(l *lane) bool { return l.takeBack(0) == nil },
		"settled":  func(l *lane) bool { l.settled(1); return true },
		"count":    func(l *lane) bool { return l.unclaimed() == 0 },
	}
	for lie, tell := range lies {
		for use, call := range uses {
			t.Run(lie+", "+use, func(t *testing.T) {
				l, side := newLane(t)
				for id := range gopool.TaskID(5) {
					require.NoError(t, l.put(id+1, nil))
				}
				side.Claim()
				side.Claim()
				require.Equal(t, 3, l.unclaimed())
				*side.Word(laneQueue) = tell(*side.Word(laneQueue))
				require.True(t, call(l))
				require.True(t, l.broken.Load())
				*side.Word(laneQueue) = 5<<32 | 2
				require.ErrorIs(t, l.put(9, nil), errLaneCount, "too late to make it good")
			})
		}
	}
	t.Run("done before it was claimed", func(t *testing.T) {
		l, _ := newLane(t)
		require.NoError(t, l.put(1, nil))
		l.settled(1)
		require.True(t, l.broken.Load())
	})
	t.Run("done twice", func(t *testing.T) {
		l, side := newLane(t)
		require.NoError(t, l.put(1, nil))
		side.Claim()
		l.settled(1)
		require.False(t, l.broken.Load())
		l.settled(1)
		require.True(t, l.broken.Load())
	})
}

// TestLaneOutcomesAreChecked expects a ring of outcomes that can't be to be refused.
func TestLaneOutcomesAreChecked(t *testing.T) {
	commit := func(s *LaneSide, n uint64) { *s.Word(laneCommit) = n }
	word := func(s *LaneSide, at int, v uint64) {
		binary.LittleEndian.PutUint64(s.mem[laneOutcomes+at:], v)
	}
	tests := map[string]struct {
		lie  func(*LaneSide)
		want error
	}{
		"more than the ring has": {func(s *LaneSide) { commit(s, laneOutcomesSize+8) }, errOutcomesCount},
		"less than was read":     {func(s *LaneSide) { commit(s, 1<<64-8) }, errOutcomesCount},
		"not a multiple of 8":    {func(s *LaneSide) { commit(s, 33) }, errOutcomesCount},
		"shorter than a record":  {func(s *LaneSide) { commit(s, 16) }, errOutcomeCut},
		"a record that is cut": {func(s *LaneSide) {
			word(s, laneRecordHeader, 100)
			commit(s, 64)
		}, errOutcomeCut},
		"a length of 4 GiB": {func(s *LaneSide) {
			word(s, laneRecordHeader, 1<<32-1)
			commit(s, 64)
		}, errOutcomeCut},
		"padding at the start": {func(s *LaneSide) {
			word(s, 0, lanePad)
			commit(s, laneOutcomesSize)
		}, errOutcomesPad},
		"padding and nothing": {func(s *LaneSide) {
			word(s, 0, lanePad)
			commit(s, 8)
		}, errOutcomesPad},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l, side := newLane(t)
			tt.lie(side)
			_, ok, err := l.peek()
			assert.False(t, ok)
			assert.ErrorIs(t, err, tt.want)
		})
	}
}

// TestLaneUnderNoise has a worker write anything anywhere at any time: this side neither panics nor
// hangs, and hands no task out twice.
func TestLaneUnderNoise(t *testing.T) {
	for seed := range uint64(rounds(40)) {
		l, side := newLane(t)
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			rng := rand.New(rand.NewPCG(seed, 7))
			for {
				select {
				case <-stop:
					return
				default:
				}
				value := rng.Uint64()
				if rng.IntN(2) == 0 {
					value = rng.Uint64N(1 << 17)
				}
				at := rng.IntN(LaneSize/8) * 8
				if rng.IntN(2) == 0 {
					at = rng.IntN(8) * 64 // the words of control
				}
				atomic.StoreUint64(side.word64(at), value)
			}
		}()
		back := map[gopool.TaskID]int{}
		for id := gopool.TaskID(1); id < 2000; id++ {
			_ = l.put(id, filled(int(id), int(id)%300))
			if id%5 == 0 {
				for _, taken := range l.takeBack(int(id) % 3) {
					back[taken]++
				}
			}
			l.settled(id / 2)
			if o, ok, err := l.peek(); ok && err == nil {
				_, _ = DecodeFromWorker(o.frame, false)
				l.free(o.size)
			}
			l.rouse()
			l.busy(time.Now())
			if id%100 == 0 { // another worker's
				l.broken.Store(false)
				l.first, l.next, l.claimed = 0, 0, 0
				atomic.StoreUint64(l.word64(laneQueue), 0)
			}
		}
		close(stop)
		<-ended
		for id, times := range back {
			require.Equal(t, 1, times, "task %s", strconv.Itoa(int(id)))
		}
	}
}

// BenchmarkLane is one task's way through a lane and back, both sides in one thread.
func BenchmarkLane(b *testing.B) {
	l, side := newLane(b)
	body, frame := make([]byte, 50), make([]byte, 40)
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-HeaderSize))
	for b.Loop() {
		_ = l.put(1, body)
		side.Claim()
		side.Publish(frame)
		o, _, _ := l.peek()
		l.free(o.size)
		l.settled(1)
	}
}
