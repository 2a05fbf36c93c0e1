// SPDX-License-Identifier: MIT

package pyapi

import "gopool/bridge"

// heap is what HeapNote has made.
var heap *bridge.Heap

// HeapNote prepares what leaves Go's heap out of forks; it is called once, right after loading. The
// result is negative where that can't be done; HeapFirst and HeapSize are not called then.
func HeapNote() int {
	found, err := bridge.NewHeap()
	if err != nil {
		return codeOf(err)
	}
	heap = found
	return 0
}

// HeapFirst is the address of the memory to be left out of forks, which has HeapSize bytes; 0: it
// must stay in just now.
func HeapFirst() int {
	first, _, _ := heap.Region()
	return int(first)
}

// HeapSize is its size.
func HeapSize() int {
	_, size, _ := heap.Region()
	return int(size)
}
