// SPDX-License-Identifier: MIT

package bridge_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gopool/bridge"
)

// setLength makes a frame's length field fit its bytes.
func setLength(frame []byte) {
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-bridge.HeaderSize))
}

// TestAppendRefuses expects a message that the other side would refuse, or that is too large, to
// be refused before it is sent, and the caller's bytes to stay.
func TestAppendRefuses(t *testing.T) {
	big := make([]byte, bridge.MaxFrame)
	task := func(m bridge.Task) func([]byte) ([]byte, error) {
		return func(dst []byte) ([]byte, error) { return bridge.AppendTask(dst, &m) }
	}
	done := func(m bridge.Done) func([]byte) ([]byte, error) {
		return func(dst []byte) ([]byte, error) { return bridge.AppendDone(dst, &m) }
	}
	failed := func(m bridge.Failed) func([]byte) ([]byte, error) {
		return func(dst []byte) ([]byte, error) { return bridge.AppendFailed(dst, &m) }
	}
	hello := func(m bridge.Hello) func([]byte) ([]byte, error) {
		return func(dst []byte) ([]byte, error) { return bridge.AppendHello(dst, &m) }
	}
	tests := []struct {
		name   string
		append func([]byte) ([]byte, error)
		size   int // of FrameTooLargeError; 0: a ProtocolError is expected
	}{
		{"task 0", task(bridge.Task{}), 0},
		{"task with mode 3", task(bridge.Task{ID: 1, Mode: 3}), 0},
		{"task with two payloads", task(bridge.Task{ID: 1, Payload: big[:1], RegionSize: 1}), 0},
		{"task with a region of 64 bits", task(bridge.Task{ID: 1, RegionSize: 1 << 63}), 0},
		{"definition of function 0", task(bridge.Task{ID: 1, Definition: big[:1]}), 0},
		{"empty definition", task(bridge.Task{ID: 1, Function: 1, Definition: big[:0]}), 0},
		{"done of task 0", done(bridge.Done{}), 0},
		{"done with status 3", done(bridge.Done{ID: 1, Status: 3}), 0},
		{"done with two payloads", done(bridge.Done{ID: 1, Payload: big[:1], RegionSize: 1}), 0},
		{"done with a region of 64 bits", done(bridge.Done{ID: 1, RegionSize: 1 << 63}), 0},
		{"hello with pid 0", hello(bridge.Hello{Version: 1}), 0},
		{"hello with a large pid", hello(bridge.Hello{Version: 1, PID: 1 << 31}), 0},
		{"failed without a stage", failed(bridge.Failed{Text: "x"}), 0},
		{"failed with text that is not UTF-8", failed(bridge.Failed{Stage: "x", Text: "\xff"}), 0},
		{"large task", task(bridge.Task{ID: 1, Payload: big}), 65536 + 15},
		{"huge task", task(bridge.Task{ID: 1, Payload: append(big, 0)}), 65537 + 4},
		{"large definition", task(bridge.Task{ID: 1, Function: 1, Definition: big}), 65536 + 16},
		{"large done", done(bridge.Done{ID: 1, Payload: big}), 65536 + 13},
		{"large failed", failed(bridge.Failed{Stage: "x", Text: string(big)}), 65537 + 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.append([]byte("kept"))
			assert.Equal(t, "kept", string(got))
			if tt.size == 0 {
				assert.ErrorAs(t, err, new(*bridge.ProtocolError))
				return
			}
			assert.Equal(t, &bridge.FrameTooLargeError{Size: tt.size, Max: bridge.MaxFrame}, err)
		})
	}
}

// TestMaxInlineFits expects a payload of MaxInline bytes to fit whatever the numbers beside it,
// and the largest frame to be legal.
func TestMaxInlineFits(t *testing.T) {
	payload := make([]byte, bridge.MaxInline)
	task := bridge.Task{ID: 1<<64 - 1, Mode: 2, Function: 1<<32 - 1, Payload: payload}
	frame, err := bridge.AppendTask(nil, &task)
	require.NoError(t, err)
	assert.LessOrEqual(t, len(frame), bridge.MaxFrame)
	done := bridge.Done{ID: 1<<64 - 1, Status: 2, Payload: payload}
	frame, err = bridge.AppendDone(nil, &done)
	require.NoError(t, err)
	assert.LessOrEqual(t, len(frame), bridge.MaxFrame)

	full := bridge.Done{ID: 1, Payload: make([]byte, bridge.MaxFrame-11)}
	frame, err = bridge.AppendDone(nil, &full)
	require.NoError(t, err)
	require.Len(t, frame, bridge.MaxFrame)
	got, err := bridge.DecodeFromWorker(frame, false)
	require.NoError(t, err)
	assert.Equal(t, full, got.Done)
}

// TestAppendKeepsPrefix expects frames to be appended behind each other.
func TestAppendKeepsPrefix(t *testing.T) {
	both := bridge.AppendReady(bridge.AppendStop(nil))
	stop, ready := bridge.AppendStop(nil), bridge.AppendReady(nil)
	assert.Equal(t, append(stop, ready...), both)
}

// TestPayloadAliasesFrame expects payload and definition to be parts of the frame that can't be
// appended to in place, so that no decoder copies and no caller overwrites what follows.
func TestPayloadAliasesFrame(t *testing.T) {
	frame, err := bridge.AppendTask(nil, &bridge.Task{ID: 1, Function: 1,
		Payload: []byte("payload"), Definition: []byte("definition")})
	require.NoError(t, err)
	m, err := bridge.DecodeToWorker(frame, false)
	require.NoError(t, err)
	for _, part := range [][]byte{m.Task.Payload, m.Task.Definition} {
		at := bytes.Index(frame, part)
		assert.Same(t, &frame[at], unsafe.SliceData(part))
		assert.Equal(t, len(part), cap(part))
	}
}

// TestDecodeDoesNotAllocate expects a result, and a hostile length, to cost no memory.
func TestDecodeDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop what it holds")
	}
	frame, err := bridge.AppendDone(nil, &bridge.Done{ID: 1 << 40, Payload: make([]byte, 1000)})
	require.NoError(t, err)
	assert.Zero(t, testing.AllocsPerRun(100, func() { _, _ = bridge.DecodeFromWorker(frame, false) }))

	hostile := []byte{0, 0, 0, 0, 0x94, 18, 1, 0, 0xc6, 0x7f, 0xff, 0xff, 0xff}
	setLength(hostile)
	allocs := testing.AllocsPerRun(100, func() { _, _ = bridge.DecodeFromWorker(hostile, false) })
	assert.LessOrEqual(t, allocs, 1.0, "the error alone")

	dst := make([]byte, 0, bridge.MaxFrame)
	task := bridge.Task{ID: 1 << 40, Function: 3, Payload: make([]byte, 1000)}
	assert.Zero(t, testing.AllocsPerRun(100, func() { _, _ = bridge.AppendTask(dst, &task) }))
}

// TestErrorTexts expects the texts to say what, which and why.
func TestErrorTexts(t *testing.T) {
	tests := []struct {
		err  error
		want []string
	}{
		{&bridge.FrameTooLargeError{Size: 70000, Max: 65536}, []string{"70000", "65536"}},
		{&bridge.ProtocolError{Kind: 18, Offset: 6, Reason: "out of range"},
			[]string{"18", "byte 6", "out of range"}},
		{&bridge.VersionError{Have: 2, Want: 1}, []string{"version 2", "version 1"}},
	}
	for _, tt := range tests {
		assert.True(t, strings.HasPrefix(tt.err.Error(), "bridge: "))
		for _, want := range tt.want {
			assert.Contains(t, tt.err.Error(), want)
		}
	}
}

func BenchmarkAppendTask(b *testing.B) {
	task := bridge.Task{ID: 123456, Function: 7, Payload: make([]byte, 100)}
	dst := make([]byte, 0, bridge.MaxFrame)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = bridge.AppendTask(dst, &task)
	}
}

func BenchmarkDecodeDone(b *testing.B) {
	frame, err := bridge.AppendDone(nil, &bridge.Done{ID: 123456, Payload: make([]byte, 100)})
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = bridge.DecodeFromWorker(frame, false)
	}
}

func BenchmarkDecodeTask(b *testing.B) {
	frame, err := bridge.AppendTask(nil, &bridge.Task{ID: 123456, Function: 7,
		Payload: make([]byte, 100)})
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = bridge.DecodeToWorker(frame, false)
	}
}
