// SPDX-License-Identifier: MIT

package bridge

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// LaneSide is the worker's side of a lane, as _lane.c has it, for tests and scripted workers.
type LaneSide struct {
	lane
	began uint64
}

// NewLaneSide maps the lane that lies in a descriptor.
func NewLaneSide(fd int) (*LaneSide, error) {
	mem, err := MapShared(fd, LaneSize)
	return &LaneSide{lane: lane{mem: mem}}, err
}

// Where a test may write what a worker must not.
const (
	LaneQueue    = laneQueue
	LaneCommit   = laneCommit
	LaneOutcomes = laneOutcomes
)

// NewLaneMemory makes the memory of a lane.
func NewLaneMemory() (fd int, err error) {
	fd, err = unix.MemfdCreate("lane", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == nil {
		err = unix.Ftruncate(fd, LaneSize)
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	return fd, err
}

// Memory is the lane's memory, and Word one of its words.
func (s *LaneSide) Memory() []byte      { return s.mem }
func (s *LaneSide) Word(at int) *uint64 { return s.word64(at) }

// Claim begins the next task; false: there is none.
func (s *LaneSide) Claim() (id uint64, body []byte, ok bool) {
	for {
		queue := atomic.LoadUint64(s.word64(laneQueue))
		head, tail := uint32(queue), uint32(queue>>32)
		if head == tail {
			return 0, nil, false
		}
		next := uint64(tail)<<32 | uint64(head+1)
		if !atomic.CompareAndSwapUint64(s.word64(laneQueue), queue, next) {
			continue
		}
		slot := s.mem[laneSlotsAt+head%laneSlots*laneSlotSize:]
		id = binary.LittleEndian.Uint64(slot)
		at, size := binary.LittleEndian.Uint32(slot[8:]), binary.LittleEndian.Uint32(slot[12:])
		s.began = clock.ns(time.Now())
		atomic.StoreUint64(s.word64(0), id)
		atomic.StoreUint64(s.word64(laneBegan), s.began)
		return id, append([]byte(nil), s.mem[laneTasks+at:laneTasks+at+size]...), true
	}
}

// Publish leaves an outcome's frame; tell says that the collector is to be woken.
func (s *LaneSide) Publish(frame []byte) (room, tell bool) {
	need := uint64(16+len(frame)+7) &^ 7
	commit, read := atomic.LoadUint64(s.word64(laneCommit)), atomic.LoadUint64(s.word64(laneRead))
	at, skipped := commit%laneOutcomesSize, uint64(0)
	if laneOutcomesSize-at < need {
		skipped = laneOutcomesSize - at
	}
	if laneOutcomesSize-(commit-read) < need+skipped {
		return false, false
	}
	ring := s.mem[laneOutcomes:][:laneOutcomesSize]
	if skipped > 0 {
		binary.LittleEndian.PutUint64(ring[at:], lanePad)
		at = 0
	}
	binary.LittleEndian.PutUint64(ring[at:], s.began)
	binary.LittleEndian.PutUint64(ring[at+8:], clock.ns(time.Now()))
	copy(ring[at+16:], frame)
	atomic.StoreUint64(s.word64(laneBegan), 0)
	atomic.StoreUint64(s.word64(laneCommit), commit+skipped+need)
	listen := s.word32(laneListen)
	return true, atomic.AndUint32(listen, ^uint32(listenCollector))&listenCollector != 0
}

// Doze announces sleep; false: a task has come. tell says that Go wants to know.
func (s *LaneSide) Doze() (sleep, tell bool) {
	atomic.StoreUint32(s.word32(laneAsleep), laneDozing)
	if queue := atomic.LoadUint64(s.word64(laneQueue)); uint32(queue) != uint32(queue>>32) {
		s.Rouse()
		return false, false
	}
	return true, atomic.LoadUint32(s.word32(laneListen))&listenHungry != 0
}

// Rouse says that sleep is over.
func (s *LaneSide) Rouse() { atomic.StoreUint32(s.word32(laneAsleep), laneAwake) }
