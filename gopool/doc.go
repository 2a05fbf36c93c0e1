// SPDX-License-Identifier: MIT

// Package gopool is the process-pool core: it owns the queue of tasks, knows which worker holds
// which task, and decides what happens when a worker ends.
//
// # What
//
// A [Pool] matches queued tasks with idle workers. It neither starts processes nor reads sockets:
// Python starts the workers (only CPython can fork itself), package bridge carries the frames,
// and both report here.
//
// # Flow
//
// Submit puts a [Task] into the queue; dispatch grants it to an idle worker through the worker's
// [Link]; Settle closes the lease and hands the [Outcome] to the [Sink]. When a worker's process
// ends, Exited takes back what it had not begun, and Reaped settles what it had.
//
// # Who owns what
//
// Every task is in exactly one place: the queue, a worker's leases, or settled. All of it is
// guarded by Pool.mu. There is no goroutine here: work is done in the thread that brings the
// news, so that an idle worker gets its task within the submitting call.
//
// # Lock order
//
// Pool.mu before anything that a Link or a Sink locks. A Link or Sink never calls back into the
// Pool.
//
// # Guarantees
//
//   - With an idle worker and a queued task, the task is granted at once. One that was sent ahead is
//     granted anew within two milliseconds after the task before it has become slow.
//   - A task is granted to one worker at a time and settled once.
//   - The death of a worker fails only the task that it had begun.
//   - No call blocks.
//
// # Assumptions
//
// A worker claims a task, or reads its message, when it is about to begin it: what it has not claimed
// or read was not begun. The death of a process and its exit status are two facts that arrive in that
// order; the status may be unknown for ever.
package gopool
