// SPDX-License-Identifier: MIT

package pyapi_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the package where a test leaves a goroutine behind. The poller of the process's
// only board is meant to stay.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("gopool/bridge.(*Poller).run"))
}
