package node_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"gotong/grid/gridtest"
	"gotong/grid/node"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// TestWhoseTasksRun: whole peers ask each other. The founder has invited all, and
// nobody else has invited anyone.
func TestWhoseTasksRun(t *testing.T) {
	const commands = 3 // the donor that runs some
	cfg := gridtest.ClusterConfig{
		Peers: 5,
		Reconfigure: func(i int, c *node.Config) {
			if i != commands { // trying bubblewrap would stop the bubble's clock
				c.Slots = 1
			}
			switch d := &c.Donate; i {
			case 0:
				d.Accept = []string{"invited-by-me"}
			case 1:
				d.Accept = []string{"peer-2"}
			case 2:
				d.Deny = []string{"Peer-1"} // of all members
			case commands:
				d.Accept, d.Allow, d.Native = []string{"peer-4"}, []string{"peer-1", "peer-2"}, []string{"peer-1", "peer-4"}
			case 4:
				d.Accept = []string{"invited-by-me"}
			}
		},
	}
	const accept, deny, none, others = "donate.accept", "donate.deny", "donate.native: none", "donate.native: peer-1, peer-4"
	modules := [5][5]string{ // what each donor says to each that asks
		{"", "", "", "", ""},
		{accept, "", "", accept, accept},
		{"", deny, "", "", ""},
		{accept, "", "", "", ""},
		{accept, accept, accept, accept, ""},
	}
	natives := [5][5]string{
		{none, none, none, none, none},
		{accept, none, none, accept, accept},
		{none, deny, none, none, none},
		{accept, "", others, "", ""},
		{accept, accept, accept, accept, none},
	}
	job, _ := echoJob(1)
	command := scheduler.Header{Job: tasks.NewJobID(), Runtime: tasks.RuntimeNative, Command: "sh", Limits: job.Limits}
	gridtest.Run(t, cfg, func(t *testing.T, c *gridtest.Cluster) {
		for what, table := range map[string]struct {
			header scheduler.Header
			want   [5][5]string
		}{"a module": {job.Header, modules}, "a command": {command, natives}} {
			for donor, row := range table.want {
				for asker, want := range row {
					// Names are known once records have gone round.
					c.Wait(fmt.Sprintf("%s of peer-%d at peer-%d: %q", what, asker, donor, want), func() bool {
						got, err := c.Peers[asker].WhyNot(t.Context(), c.Peers[donor].ID, table.header)
						if donor == commands {
							refused := c.Peers[donor].Refuses(c.Peers[asker].Peer, table.header)
							got = fmt.Sprint(refused)
							if strings.Contains(got, "donate.") && !errors.Is(refused, tasks.ErrUnfit) {
								t.Errorf("%q: who waits for it waits in vain", got)
							}
						}
						if err != nil {
							t.Fatal(err)
						}
						if want == "" { // it would, but for the sandbox that it lacks here
							return !strings.Contains(got, "donate.") && (got == "" || donor == commands)
						}
						return strings.Contains(got, want)
					})
				}
			}
		}
	})
}
