// SPDX-License-Identifier: MIT

package pyapi

import "gopool/bridge"

// heap is what HeapNote has made.
var heap *bridge.Heap

// HeapNote prepares what leaves Go's heap out of forks; it is called once, right after loading. The
// result is negative where that can't be done; HeapHide and HeapShow are not called then.
func HeapNote() int {
	found, err := bridge.NewHeap()
	if err != nil {
		return codeOf(err)
	}
	heap = found
	return 0
}

// HeapHide leaves the heap out of forks until HeapShow; 0: it can't be done just now.
func HeapHide() int {
	if heap.Hide() {
		return 1
	}
	return 0
}

// HeapShow undoes HeapHide, whatever that said, and where it was never called.
func HeapShow() int {
	if heap != nil {
		heap.Show()
	}
	return 0
}
