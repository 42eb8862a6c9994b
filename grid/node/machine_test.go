package node_test

import (
	"net"
	"strconv"
	"testing"

	"gotong/grid/node"
)

// TestChosenPort: a port that is not given is a free one, and none that a
// connection of another program may have when the peer starts again.
func TestChosenPort(t *testing.T) {
	for range 20 {
		c, err := node.Complete(node.Config{Name: "a", Listen: "127.0.0.1:0"}, t.TempDir(), true, true)
		if err != nil {
			t.Fatal(err)
		}
		host, text, err := net.SplitHostPort(c.Listen)
		port, errPort := strconv.Atoi(text)
		if err != nil || errPort != nil || host != "127.0.0.1" || port < 16384 || port >= 32768 {
			t.Errorf("chose %s", c.Listen)
		}
	}
	if c, err := node.Complete(node.Config{Name: "a", Listen: "127.0.0.1:77"}, t.TempDir(), true, true); err != nil || c.Listen != "127.0.0.1:77" {
		t.Errorf("a port that was given became %s, %v", c.Listen, err)
	}
	if c, err := node.Complete(node.Config{Name: "a", Listen: "192.0.2.1:0"}, t.TempDir(), true, true); err == nil {
		t.Errorf("%s is no address of this machine", c.Listen)
	}
}
