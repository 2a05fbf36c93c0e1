// SPDX-License-Identifier: MIT

package bridge_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the package where a test leaves a goroutine behind. Started with the name of a
// script, the binary is a worker and runs no test.
func TestMain(m *testing.M) {
	switch script := os.Getenv(scriptVariable); script {
	case "":
	case treeCaller:
		endTreeAbove()
	default:
		runChild(script)
	}
	goleak.VerifyTestMain(m)
}
