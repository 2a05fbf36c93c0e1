// SPDX-License-Identifier: MIT

package pyapi

import (
	"errors"
	"sync"
)

var errUnknownHandle = errors.New("pyapi: no such handle")

// handles maps numbers, counted from 1 and never used again, to objects.
type handles[T any] struct {
	mu   sync.RWMutex
	live map[int]T
	last int
}

func (h *handles[T]) put(value T) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil {
		h.live = make(map[int]T)
	}
	h.last++
	h.live[h.last] = value
	return h.last
}

func (h *handles[T]) get(handle int) (T, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	value, ok := h.live[handle]
	if !ok {
		return value, errUnknownHandle
	}
	return value, nil
}

func (h *handles[T]) take(handle int) (T, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	value, ok := h.live[handle]
	if !ok {
		return value, errUnknownHandle
	}
	delete(h.live, handle)
	return value, nil
}

func (h *handles[T]) len() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.live)
}
