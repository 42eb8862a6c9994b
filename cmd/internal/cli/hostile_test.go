package cli

import (
	"bytes"
	"strings"
	"testing"

	controlv1 "gotong/proto/control/v1"
)

// TestHostileWords: what another peer says of itself never reaches the terminal
// as it is, in no table and in no error.
func TestHostileWords(t *testing.T) {
	hostile := "\x1b[31mred\x1b]0;title\x07\r\n\tbad\u202e\u0085\xff"
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: &out}
	peer := &controlv1.PeerInfo{Id: strings.Repeat("a", 52), Owner: strings.Repeat("b", 52), State: "alive", Name: hostile, Site: hostile, Address: hostile, Version: hostile}
	if err := a.printPeers([]*controlv1.PeerInfo{peer}); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 2 {
		t.Errorf("%d lines: %q", lines, out.String())
	}
	if err := a.printRemoved([]*controlv1.PeerInfo{peer}, true); err != nil {
		t.Fatal(err)
	}
	err := a.printStatus(&controlv1.StatusResponse{
		Sentence: hostile, Peer: peer.Id, Name: hostile, Listen: "[::]:1", Giving: &controlv1.Giving{},
		Backups:  []*controlv1.BackupState{{Set: hostile, State: hostile}},
		Problems: []*controlv1.Problem{{What: hostile, Why: hostile, Do: hostile}},
	})
	if err != nil {
		t.Fatal(err)
	}
	a.report(&failure{code: 1, what: hostile, meaning: hostile, next: hostile})
	if strings.ContainsAny(out.String(), "\x1b\x07\r\t\u202e\u0085") || strings.Contains(out.String(), "\xff") {
		t.Errorf("reached the terminal: %q", out.String())
	}
	if !strings.Contains(out.String(), `\x1b[31mred`) {
		t.Errorf("escaped beyond recognition: %q", out.String())
	}
}
