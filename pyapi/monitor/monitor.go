// SPDX-License-Identifier: MIT

// Package monitor makes the monitor thread of Go's runtime wake up less often.
//
// That thread (sysmon) sleeps 20 µs at a time for as long as a thread that left Go, as each call of
// Python's does, might come back: 10 ms. With the system's usual timer slack these are 11,000
// wake-ups a second, and each takes the processor from a worker. What the monitor does can wait
// for a millisecond: it interrupts goroutines that run for 10 ms, and takes away the places
// (GOMAXPROCS) that threads keep which have left Go. So that nobody waits for such a place there
// are more of them than threads of Python's that call Go at a time, whatever the processors.
//
// Only a thread itself can change its timer slack; one that is made has its maker's. So the call
// that makes the runtime's threads is wrapped, in C: importing this package is enough.
package monitor

// #cgo LDFLAGS: -Wl,--wrap=pthread_create
import "C"

import (
	"os"
	"runtime"
)

// leastPlaces is the least GOMAXPROCS: the pool's three threads, as many that submit, and two to run
// goroutines.
const leastPlaces = 8

func init() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < leastPlaces {
		runtime.GOMAXPROCS(leastPlaces)
	}
}
