// SPDX-License-Identifier: MIT

package bridge_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"gopool/bridge"
)

// TestFunctions expects ids from 1 on, each with its definition, and nil for every other id.
func TestFunctions(t *testing.T) {
	var f bridge.Functions
	assert.Nil(t, f.Definition(1))
	assert.Equal(t, uint32(1), f.Add([]byte("one")))
	assert.Equal(t, uint32(2), f.Add([]byte("two")))
	assert.Equal(t, uint32(3), f.Add([]byte("one")), "equal definitions are two functions")
	tests := []struct {
		id   uint32
		want []byte
	}{
		{0, nil}, {1, []byte("one")}, {2, []byte("two")}, {3, []byte("one")}, {4, nil},
		{1<<32 - 1, nil},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, f.Definition(tt.id), "id %d", tt.id)
	}
}

// TestFunctionsConcurrently expects ids to be unique, and a definition to be there as soon as its
// id is known.
func TestFunctionsConcurrently(t *testing.T) {
	const writers, each = 4, 100
	var f bridge.Functions
	var wait sync.WaitGroup
	var ids sync.Map
	for w := range writers {
		wait.Go(func() {
			for i := range each {
				want := fmt.Sprint(w, i)
				id := f.Add([]byte(want))
				assert.Equal(t, want, string(f.Definition(id)))
				_, taken := ids.LoadOrStore(id, true)
				assert.False(t, taken, "id %d was given out twice", id)
			}
		})
	}
	wait.Wait()
	assert.Equal(t, uint32(writers*each+1), f.Add(nil))
}
