// SPDX-License-Identifier: MIT

package bridge

import (
	"encoding/binary"

	"gopool/gopool"
)

// This file lets a thread that waits for one task read its outcome for itself while the collector
// sleeps: the collector need not wake up, take the interpreter lock, and wake that thread.
//
// The record is lent, not given. It leaves the ring at once, so that nobody waits for the thread that
// has it, and a copy is kept until the thread says that its job is settled. Where it was interrupted
// before that, the copy goes back into the ring. To read an outcome twice does no harm: who settles a
// job takes it out of the pool's cache first.

// claim keeps the collector asleep while somebody looks for a job's outcome. false: it reads just now,
// or another thread looks.
func (q *Outcomes) claim() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.asleep || q.watched {
		return false
	}
	q.watched = true
	return true
}

// unclaim ends a claim: the collector is woken where there is something to read.
func (q *Outcomes) unclaim() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.watched = false
	if q.head != q.tail || q.poked || q.drained || q.scarce.place == asked {
		q.rouse()
	}
}

// lend takes a job's outcome out of the ring, if that is the next record, holds a value and no region,
// and fits into room bytes. The payload is the keeper's, and may be copied only.
func (q *Outcomes) lend(job uint64, room int) (payload []byte, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := q.tail % uint64(len(q.mem))
	if q.head == q.tail || q.poked {
		return nil, false
	}
	h := q.mem[at:]
	none := ^uint64(0)
	size := binary.LittleEndian.Uint32(h[4:])
	if size == padRecord || int(size) > room ||
		binary.LittleEndian.Uint64(h[8:]) != job ||
		binary.LittleEndian.Uint64(h[32:]) != none ||
		binary.LittleEndian.Uint64(h[40:]) != none ||
		binary.LittleEndian.Uint64(h[48:]) != uint64(gopool.StatusValue) {
		return nil, false
	}
	r := record{payload: append([]byte(nil), h[recordHeader:recordHeader+size]...)}
	copy(r.header[:], h)
	if q.lent == nil {
		q.lent = make(map[uint64]record)
	}
	q.lent[job] = r
	q.consume(uint64(binary.LittleEndian.Uint32(h)))
	return r.payload, true
}

// Return ends the loan of a job's outcome, if there is one; 0: all loans. Where the job is not settled
// the outcome goes back into the ring.
func (q *Outcomes) Return(job uint64, settled bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for lent, r := range q.lent {
		if job != 0 && job != lent {
			continue
		}
		delete(q.lent, lent)
		if !settled {
			q.append(r)
		}
	}
	if q.drained && len(q.lent) == 0 {
		q.rouse()
	}
}
