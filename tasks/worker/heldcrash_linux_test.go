package worker

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotong/tasks/sandbox"
)

// heldPeer in the environment makes the test binary a worker that holds a guest
// until it is killed.
const heldPeer = "TEST_HELD_WORKER"

// TestKilledPeerLeavesNoStoppedGuest: the kernel ends a stopped guest with the
// peer that stopped it.
func TestKilledPeerLeavesNoStoppedGuest(t *testing.T) {
	if os.Getenv(heldPeer) != "" {
		w := startWorker(t, func(c *Config) { c.Slots = 1 })
		doLater(t, w, newBatch(t, w, "probe").task("spin"))
		waitFor(t, w, "it runs", inSandbox(1))
		w.Allow(Allowance{Why: "test", Hold: time.Hour})
		select {}
	}
	peer := exec.Command(os.Args[0], "-test.run=^TestKilledPeerLeavesNoStoppedGuest$")
	peer.Env = append(os.Environ(), heldPeer+"=1", "TMPDIR="+t.TempDir()) // it does not live to tidy up
	if err := peer.Start(); err != nil {
		t.Fatal(err)
	}
	defer peer.Process.Kill()
	await(t, "no guest was stopped", func() bool {
		lines, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, path := range lines {
			if state, parent := stateOf(path); state == "T" && parent == peer.Process.Pid {
				return true
			}
		}
		return false
	})
	below := sandbox.Descendants(peer.Process.Pid)
	if err := peer.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	peer.Wait()
	await(t, "a guest is still there", func() bool {
		for _, pid := range below {
			if state, _ := stateOf(fmt.Sprintf("/proc/%d/stat", pid)); state != "" && state != "Z" {
				return false
			}
		}
		return true
	})
}

// stateOf reads the state and the parent of a process.
func stateOf(path string) (state string, parent int) {
	line, err := os.ReadFile(path)
	if err != nil {
		return "", 0
	}
	fields := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
	parent, _ = strconv.Atoi(fields[1])
	return fields[0], parent
}

func await(t *testing.T, problem string, ok func() bool) {
	t.Helper()
	for range 12_000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(problem)
}
