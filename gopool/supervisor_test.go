// SPDX-License-Identifier: MIT

package gopool

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	exitedWell  = ExitStatus{Known: true}
	exitedBadly = ExitStatus{Code: 1, Known: true}
)

type supervisorRig struct {
	*Supervisor
	now time.Time
}

func newSupervisorRig(intensity int, jitter float64) *supervisorRig {
	r := &supervisorRig{now: time.Unix(1_000_000, 0)}
	r.Supervisor = NewSupervisor(SupervisorConfig{Intensity: intensity, Period: 10 * time.Second,
		Backoff: time.Second, Longest: 3 * time.Second, Now: func() time.Time { return r.now },
		Jitter: func() float64 { return jitter }})
	return r
}

// Each policy names the ends after which a child is started again; an unknown status is a failure.
func TestRestartPolicies(t *testing.T) {
	tests := []struct {
		policy Restart
		exit   ExitStatus
		again  bool
	}{
		{RestartNever, exitedWell, false},
		{RestartNever, exitedBadly, false},
		{RestartOnFailure, exitedWell, false},
		{RestartOnFailure, exitedBadly, true},
		{RestartOnFailure, ExitStatus{}, true},
		{RestartAlways, exitedWell, true},
		{RestartAlways, exitedBadly, true},
	}
	for _, tt := range tests {
		r := newSupervisorRig(1, 0)
		d, err := r.Ended(r.Add(tt.policy), tt.exit)
		require.NoError(t, err)
		assert.Equal(t, tt.again, d.Restart, "policy %d, %+v", tt.policy, tt.exit)
		assert.False(t, d.GiveUp)
	}
}

// The pause doubles up to its bound, and starts anew after a child that ran for a period.
func TestSupervisorBackoff(t *testing.T) {
	for _, jitter := range []float64{0, 0.5} {
		r := newSupervisorRig(100, jitter)
		child := r.Add(RestartAlways)
		for _, pause := range []time.Duration{1, 2, 3, 3} {
			d, err := r.Ended(child, exitedBadly)
			require.NoError(t, err)
			assert.Equal(t, time.Duration(float64(pause*time.Second)*(1-jitter/2)), d.After)
			require.NoError(t, r.Started(child))
		}
		r.now = r.now.Add(10 * time.Second)
		d, err := r.Ended(child, exitedBadly)
		require.NoError(t, err)
		assert.Equal(t, time.Duration(float64(time.Second)*(1-jitter/2)), d.After)
	}
}

// One restart more than the intensity within a period is given up, for all children; what is longer
// ago does not count.
func TestIntensity(t *testing.T) {
	r := newSupervisorRig(2, 0)
	one, two := r.Add(RestartAlways), r.Add(RestartAlways)
	for _, child := range []int{one, two} {
		d, _ := r.Ended(child, exitedBadly)
		require.True(t, d.Restart)
	}
	r.now = r.now.Add(11 * time.Second)
	for range 2 {
		d, _ := r.Ended(one, exitedBadly)
		require.True(t, d.Restart)
	}
	d, _ := r.Ended(two, exitedWell)
	assert.Equal(t, Decision{GiveUp: true}, d)
	d, _ = r.Ended(one, exitedBadly)
	assert.Equal(t, Decision{}, d, "it has given up already")
}

// A child that is removed is unknown.
func TestRemovedChild(t *testing.T) {
	r := newSupervisorRig(1, 0)
	child := r.Add(RestartAlways)
	r.Remove(child)
	_, err := r.Ended(child, exitedBadly)
	assert.ErrorIs(t, err, ErrUnknownChild)
	assert.ErrorIs(t, r.Started(child), ErrUnknownChild)
}

// Whatever children do: never more restarts within a period than the intensity, never a pause out of
// its bounds, and giving up is for good.
func TestRandomSupervision(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		r := newSupervisorRig(1+rng.IntN(4), rng.Float64())
		children := []int{r.Add(RestartAlways), r.Add(RestartOnFailure), r.Add(RestartNever)}
		var restarts []time.Time
		gaveUp := false
		for range 300 {
			r.now = r.now.Add(time.Duration(rng.IntN(4000)) * time.Millisecond)
			d, err := r.Ended(children[rng.IntN(3)], ExitStatus{Code: rng.IntN(2), Known: true})
			require.NoError(t, err)
			require.False(t, gaveUp && (d.Restart || d.GiveUp))
			gaveUp = gaveUp || d.GiveUp
			if !d.Restart {
				continue
			}
			require.GreaterOrEqual(t, d.After, time.Second/2)
			require.LessOrEqual(t, d.After, 3*time.Second)
			restarts = append(restarts, r.now)
			if n := len(restarts) - 1 - r.cfg.Intensity; n >= 0 {
				require.Greater(t, r.now.Sub(restarts[n]), r.cfg.Period, "seed %d", seed)
			}
		}
	}
}
