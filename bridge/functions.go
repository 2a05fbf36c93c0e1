// SPDX-License-Identifier: MIT

package bridge

import "sync"

// Functions is a pool's table of function definitions: pickles by reference, each sent to a
// worker once and named by its number afterwards. Safe for concurrent use.
type Functions struct {
	mu          sync.RWMutex
	definitions [][]byte // definitions[id-1]
}

// Add stores a definition and returns its id, counted from 1.
func (f *Functions) Add(definition []byte) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.definitions = append(f.definitions, definition)
	return uint32(len(f.definitions))
}

// Definition returns what was stored under id, or nil.
func (f *Functions) Definition(id uint32) []byte {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if id == 0 || int(id) > len(f.definitions) {
		return nil
	}
	return f.definitions[id-1]
}
