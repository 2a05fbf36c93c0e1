// SPDX-License-Identifier: MIT

package bridge_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"gopool/bridge"
)

// seedFrames gives a fuzz test every golden frame, good and bad.
func seedFrames(f *testing.F) {
	g := readGolden(f)
	for _, good := range g.Good {
		f.Add([]byte(good.Hex), good.Descriptor, good.ToWorker)
	}
	for i := range g.Bad {
		f.Add(g.Bad[i].frame(), g.Bad[i].Descriptor, g.Bad[i].ToWorker)
	}
}

// checkAnyBytes expects a ProtocolError or VersionError for bytes that are no message, with an
// offset inside the frame; and a message that encodes and decodes to itself for others.
func checkAnyBytes(t *testing.T, frame []byte, descriptor, toWorker bool) {
	m, err := decode(frame, descriptor, toWorker)
	var broken *bridge.ProtocolError
	var version *bridge.VersionError
	switch {
	case errors.As(err, &broken):
		require.NotEmpty(t, broken.Reason)
		require.LessOrEqual(t, broken.Offset, len(frame))
		require.GreaterOrEqual(t, broken.Offset, 0)
		return
	case errors.As(err, &version):
		require.NotEqual(t, bridge.Version, version.Have)
		return
	}
	require.NoError(t, err)
	again, err := encode(m)
	require.NoError(t, err)
	require.LessOrEqual(t, len(again), len(frame), "we write the shortest form")
	same, err := decode(again, descriptor, toWorker)
	require.NoError(t, err)
	require.Equal(t, m, same)
}

// FuzzFrame feeds whole frames, length field included.
func FuzzFrame(f *testing.F) {
	seedFrames(f)
	f.Fuzz(checkAnyBytes)
}

// FuzzBody repairs the length field first, so that all bytes reach the message decoder.
func FuzzBody(f *testing.F) {
	seedFrames(f)
	f.Fuzz(func(t *testing.T, frame []byte, descriptor, toWorker bool) {
		if len(frame) >= bridge.HeaderSize {
			frame = append([]byte(nil), frame...)
			setLength(frame)
		}
		checkAnyBytes(t, frame, descriptor, toWorker)
	})
}
