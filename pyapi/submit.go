// SPDX-License-Identifier: MIT

package pyapi

import (
	"encoding/binary"
	"math"

	"gopool/bridge"
	"gopool/gopool"
)

// stagings are areas of shared memory into which Python writes a payload before it is submitted;
// whoever submits has one for himself during the call.
var stagings handles[[]byte]

// StagingOpen maps size bytes of fd; the result is the area's handle. fd may be closed after.
func StagingOpen(fd, size int) int {
	if size <= 0 {
		return codeBadArgument
	}
	mem, err := bridge.MapShared(fd, size)
	if err != nil {
		return codeOf(err)
	}
	return stagings.put(mem)
}

// StagingClose unmaps an area that nobody uses any more.
func StagingClose(staging int) int {
	mem, err := stagings.take(staging)
	if err != nil {
		return codeOf(err)
	}
	return codeOf(bridge.UnmapShared(mem))
}

// staged copies the first n bytes of an area.
func staged(staging, n int) ([]byte, int) {
	mem, err := stagings.get(staging)
	if err != nil {
		return nil, codeOf(err)
	}
	if n < 0 || n > len(mem) {
		return nil, codeBadArgument
	}
	return append([]byte(nil), mem[:n]...), 0
}

// poolAndArea finds a pool and a staging area.
func poolAndArea(pool, staging int) (*bridge.PoolWires, []byte, error) {
	wires, err := pools.get(pool)
	if err != nil {
		return nil, nil, err
	}
	mem, err := stagings.get(staging)
	return wires, mem, err
}

// FunctionAdd stores the n bytes of a function's definition; the result is its id in this pool.
func FunctionAdd(pool, staging, n int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	definition, code := staged(staging, n)
	if code < 0 {
		return code
	}
	return int(wires.Functions.Add(definition))
}

// Submit hands over a task whose payload is the first n bytes of a staging area; options is 0 or
// OptionsAdd's result. The result is the number of bytes of payload that are unsettled now.
func Submit(pool, staging, n, job, index, mode, function, options int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	payload, code := staged(staging, n)
	if code == 0 {
		code = sendable(wires, n, mode, function)
	}
	if code < 0 {
		return code
	}
	return submit(wires, options, &gopool.Task{Job: uint64(job), Index: uint64(index),
		Mode: uint8(mode), Function: uint32(function), Payload: payload, Region: gopool.NoRegion})
}

// SubmitMany hands over count tasks of one job, with indices from first on, in their order: as Submit
// would each of them, but all or none. In the staging area lie the sizes of their payloads, 32 bits
// little endian each, and then the payloads, one right behind the other. The result is as Submit's.
func SubmitMany(pool, staging, count, job, first, mode, function, options int) int {
	wires, mem, err := poolAndArea(pool, staging)
	if err != nil {
		return codeOf(err)
	}
	o, known := optionsOf(wires, options)
	if count <= 0 || count > len(mem)/sizeOfSize || !known {
		return codeBadArgument
	}
	sizes, bytes := mem[:count*sizeOfSize], mem[count*sizeOfSize:]
	total, longest := 0, 0
	for i := range count {
		size := int(binary.LittleEndian.Uint32(sizes[i*sizeOfSize:]))
		total, longest = total+size, max(longest, size)
	}
	if total > len(bytes) {
		return codeBadArgument
	}
	if code := sendable(wires, longest, mode, function); code < 0 {
		return code
	}
	// One piece of memory for all payloads and one for all tasks: most end in the order in which they
	// were submitted, so none of it is kept for long by a few.
	left := append([]byte(nil), bytes[:total]...)
	tasks := make([]gopool.Task, count)
	for i := range tasks {
		size := binary.LittleEndian.Uint32(sizes[i*sizeOfSize:])
		tasks[i] = gopool.Task{Job: uint64(job), Index: uint64(first + i), Mode: uint8(mode),
			Function: uint32(function), Payload: left[:size:size], Region: gopool.NoRegion, Options: o}
		left = left[size:]
	}
	return loadOf(wires.SubmitAll(tasks))
}

// sizeOfSize is how many bytes a payload's size takes in SubmitMany's staging area.
const sizeOfSize = 4

// SubmitRegion hands over a task whose payload is the size bytes of a memfd. The descriptor
// stays Python's; the outcome names it when it may be closed. The result is as Submit's.
func SubmitRegion(pool, fd, size, job, index, mode, function, options int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	if fd < 0 || size <= 0 {
		return codeBadArgument
	}
	if code := sendable(wires, 0, mode, function); code < 0 {
		return code
	}
	return submit(wires, options, &gopool.Task{Job: uint64(job), Index: uint64(index),
		Mode: uint8(mode), Function: uint32(function),
		Region: gopool.Region{FD: fd, Size: uint64(size)}})
}

// sendable refuses a task that no frame can carry: it would end every worker that it is sent to.
func sendable(wires *bridge.PoolWires, n, mode, function int) int {
	if mode < 0 || mode > int(bridge.ModeStarmap) || function < 0 || function > math.MaxUint32 {
		return codeBadArgument
	}
	definition := wires.Functions.Definition(uint32(function))
	switch {
	case function != 0 && len(definition) == 0:
		return codeBadArgument
	case n+len(definition) > bridge.MaxInline:
		return codeTooLarge
	}
	return 0
}

func submit(wires *bridge.PoolWires, options int, t *gopool.Task) int {
	o, known := optionsOf(wires, options)
	if !known {
		return codeBadArgument
	}
	t.Options = o
	return loadOf(wires.Submit(t))
}

// optionsOf finds what OptionsAdd has stored under a number; nil where that is 0.
func optionsOf(wires *bridge.PoolWires, number int) (o *gopool.Options, known bool) {
	if number == 0 {
		return nil, true
	}
	return wires.Pool.Options(number)
}

// loadOf is the result of a submission: bytes of payload that are unsettled, or a code.
func loadOf(load uint64, err error) int {
	if err != nil {
		return codeOf(err)
	}
	return int(load)
}

// Take frees the bytes of outcomes that were read, and returns which may be read now: their place in
// the ring in the upper half, how many in the lower. See bridge.PoolWires.Take.
func Take(pool, consumed int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	if consumed < 0 {
		return codeBadArgument
	}
	return wires.Take(consumed)
}

// Tighten says that this process may open no more descriptors. taking is 1 before it gives up one of
// its own for a task, so that no result takes that place, and 0 afterwards.
func Tighten(pool, taking int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	wires.Outcomes.Tighten(taking != 0)
	return 0
}

// Tight is 1 where this process could open no more descriptors, and can open few since.
func Tight(pool int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	if wires.Outcomes.Tight() {
		return 1
	}
	return 0
}

// Borrow looks for the small value of a job, whose waiter reads it instead of the collector, and
// copies it into a staging area. The result is its size in bytes; 0: it is not there. Return follows.
func Borrow(pool, staging, job int) int {
	wires, mem, err := poolAndArea(pool, staging)
	if err != nil {
		return codeOf(err)
	}
	return wires.Borrow(uint64(job), mem)
}

// Return ends what Borrow began, if it lent anything: settled is 1 where the job is settled, else its
// outcome is the collector's again. Job 0: all that is lent.
func Return(pool, job, settled int) int {
	wires, err := pools.get(pool)
	if err != nil {
		return codeOf(err)
	}
	wires.Outcomes.Return(uint64(job), settled == 1)
	return 0
}
