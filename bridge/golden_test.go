// SPDX-License-Identifier: MIT

package bridge_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gopool/bridge"
)

// hexBytes is a byte string written as hexadecimal digits; nil where JSON has null.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(data []byte) error {
	var s *string
	if err := json.Unmarshal(data, &s); err != nil || s == nil {
		return err
	}
	b, err := hex.DecodeString(*s)
	*h = b
	return err
}

type goldenMessage struct {
	Kind       bridge.Kind
	Task       uint64
	Mode       bridge.Mode
	Function   uint32
	Payload    hexBytes
	Region     uint64
	Definition hexBytes
	Version    uint32
	PID        uint32
	Flags      uint32
	Status     bridge.Status
	Stage      string
	Text       string
}

type goldenGood struct {
	Name       string
	ToWorker   bool `json:"to_worker"`
	Descriptor bool
	Canonical  bool
	Message    goldenMessage
	Hex        hexBytes
}

type goldenBad struct {
	Name       string
	ToWorker   bool `json:"to_worker"`
	Descriptor bool
	Hex        hexBytes
	Pad        int // zero bytes to append to hex
	Error      struct {
		Kind   bridge.Kind
		Offset int
		Reason string
		Have   uint32
	}
}

func (b *goldenBad) frame() []byte {
	return append(b.Hex[:len(b.Hex):len(b.Hex)], make([]byte, b.Pad)...)
}

type goldenFile struct {
	Good []goldenGood
	Bad  []goldenBad
}

func readGolden(t testing.TB) *goldenFile {
	data, err := os.ReadFile("testdata/frames/frames.json")
	require.NoError(t, err)
	var g goldenFile
	require.NoError(t, json.Unmarshal(data, &g))
	require.NotEmpty(t, g.Good)
	require.NotEmpty(t, g.Bad)
	return &g
}

// decode decodes either direction.
func decode(frame []byte, descriptor, toWorker bool) (any, error) {
	if toWorker {
		return bridge.DecodeToWorker(frame, descriptor)
	}
	return bridge.DecodeFromWorker(frame, descriptor)
}

// encode writes a decoded message again.
func encode(m any) ([]byte, error) {
	switch m := m.(type) {
	case bridge.ToWorker:
		switch m.Kind {
		case bridge.KindTask:
			return bridge.AppendTask(nil, &m.Task)
		case bridge.KindLook:
			return bridge.AppendLook(nil), nil
		}
		return bridge.AppendStop(nil), nil
	case bridge.FromWorker:
		switch m.Kind {
		case bridge.KindHello:
			return bridge.AppendHello(nil, &m.Hello)
		case bridge.KindDone:
			return bridge.AppendDone(nil, &m.Done)
		case bridge.KindFailed:
			return bridge.AppendFailed(nil, &m.Failed)
		case bridge.KindDozing:
			return bridge.AppendDozing(nil), nil
		}
	}
	return bridge.AppendReady(nil), nil
}

// message is what the decoder should return for a golden frame.
func (g *goldenMessage) message() any {
	payload := []byte(g.Payload)
	if g.Region != 0 {
		payload = nil // a region's size stands where an inline payload would
	}
	switch g.Kind {
	case bridge.KindTask:
		return bridge.ToWorker{Kind: g.Kind, Task: bridge.Task{ID: g.Task, Mode: g.Mode,
			Function: g.Function, Payload: payload, RegionSize: g.Region,
			Definition: g.Definition}}
	case bridge.KindStop, bridge.KindLook:
		return bridge.ToWorker{Kind: g.Kind}
	}
	m := bridge.FromWorker{Kind: g.Kind}
	switch g.Kind {
	case bridge.KindHello:
		m.Hello = bridge.Hello{Version: g.Version, PID: g.PID, Flags: g.Flags}
	case bridge.KindDone:
		m.Done = bridge.Done{ID: g.Task, Status: g.Status, Payload: payload,
			RegionSize: g.Region}
	case bridge.KindFailed:
		m.Failed = bridge.Failed{Stage: g.Stage, Text: g.Text}
	}
	return m
}

// TestGoldenGood expects each golden frame to decode to its message and, where it is written the
// way we write, the message to encode to the same bytes.
func TestGoldenGood(t *testing.T) {
	for _, g := range readGolden(t).Good {
		t.Run(g.Name, func(t *testing.T) {
			got, err := decode(g.Hex, g.Descriptor, g.ToWorker)
			require.NoError(t, err)
			require.Equal(t, g.Message.message(), got)
			again, err := encode(got)
			require.NoError(t, err)
			if g.Canonical {
				assert.Equal(t, []byte(g.Hex), again)
			} else {
				assert.Less(t, len(again), len(g.Hex))
			}
		})
	}
}

// TestGoldenBad expects each bad frame to be refused with its reason and place.
func TestGoldenBad(t *testing.T) {
	for _, b := range readGolden(t).Bad {
		t.Run(b.Name, func(t *testing.T) {
			_, err := decode(b.frame(), b.Descriptor, b.ToWorker)
			if b.Error.Reason == "unknown version" {
				assert.Equal(t, &bridge.VersionError{Have: b.Error.Have, Want: bridge.Version}, err)
				return
			}
			assert.Equal(t, &bridge.ProtocolError{Kind: b.Error.Kind, Offset: b.Error.Offset,
				Reason: b.Error.Reason}, err)
		})
	}
}

// TestGoldenTorn expects every proper prefix of a good frame to be refused, with its old length
// and with a length that fits.
func TestGoldenTorn(t *testing.T) {
	for _, g := range readGolden(t).Good {
		for n := range g.Hex {
			torn := append([]byte(nil), g.Hex[:n]...)
			_, err := decode(torn, g.Descriptor, g.ToWorker)
			require.ErrorAs(t, err, new(*bridge.ProtocolError), "%s cut to %d", g.Name, n)
			if n >= bridge.HeaderSize {
				setLength(torn)
				_, err = decode(torn, g.Descriptor, g.ToWorker)
				require.ErrorAs(t, err, new(*bridge.ProtocolError), "%s refitted to %d", g.Name, n)
			}
		}
	}
}
