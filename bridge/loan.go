// SPDX-License-Identifier: MIT

package bridge

import (
	"encoding/binary"
	"time"

	"gopool/gopool"
)

// This file lets a thread that waits for one task read its outcome for itself while the collector
// sleeps: the collector need not wake up, take the interpreter lock, and wake that thread.
//
// The record is lent, not given: until it is returned nobody else reads the ring, and where the
// thread was interrupted before it had settled its job, the collector finds the record as it was.

// loanMost is when a loan counts as forgotten: its thread was interrupted while it returned it.
const loanMost = time.Second

// Claim keeps the collector from reading, for a thread that waits for a job. false: it reads just
// now, or another thread does.
func (q *Outcomes) Claim(job uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.asleep || q.isLent() {
		return false
	}
	q.lent, q.lentAt = job, time.Now()
	return true
}

// ValueOf finds the payload of a job's outcome, if that is the next record, holds a value and no
// region. Its place is in the upper half of the result, its size in the lower.
func (q *Outcomes) ValueOf(job uint64) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := q.tail % uint64(len(q.mem))
	if q.head == q.tail || q.poked {
		return 0
	}
	h := q.mem[at:]
	none := int64(-1)
	if binary.LittleEndian.Uint32(h[4:]) == padRecord ||
		binary.LittleEndian.Uint64(h[8:]) != job ||
		binary.LittleEndian.Uint64(h[32:]) != uint64(none) ||
		binary.LittleEndian.Uint64(h[40:]) != uint64(none) ||
		binary.LittleEndian.Uint64(h[48:]) != uint64(gopool.StatusValue) {
		return 0
	}
	return int(at+recordHeader)<<32 | int(binary.LittleEndian.Uint32(h[4:]))
}

// TakeBack ends a job's loan; false: it has none. Where its job is settled the record is read.
func (q *Outcomes) TakeBack(job uint64, settled bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lent != job {
		return false
	}
	q.lent = 0
	if settled && q.head != q.tail && !q.poked {
		at := q.tail % uint64(len(q.mem))
		if binary.LittleEndian.Uint64(q.mem[at+8:]) == job {
			q.consume(uint64(binary.LittleEndian.Uint32(q.mem[at:])))
		}
	}
	if q.head != q.tail || q.poked || q.drained {
		q.rouse()
	}
	return true
}

// isLent says whether a loan runs, and forgets one that nobody will return. mu is held.
func (q *Outcomes) isLent() bool {
	if q.lent != 0 && time.Since(q.lentAt) > loanMost {
		q.lent = 0
	}
	return q.lent != 0
}
