package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) leaveCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "leave",
		Short: "Leave the grid for good and stop this peer",
		Long: `Leave tells the grid that this peer will not come back and stops it. What it held
for others counts as lost at once; what it backed up stays with the holders. To
be away for a while, just stop the peer instead.`,
		Example: "  gotong leave --yes",
		Args:    exactArgs(0),
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !yes {
			if err := a.confirm("Leave the grid for good?"); err != nil {
				return usageError(c, err)
			}
		}
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			if _, err := peer.Leave(ctx, &controlv1.LeaveRequest{}); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(struct {
					Left bool `json:"left"`
				}{true})
			}
			fmt.Fprintln(a.stdout, "This peer has left the grid and is stopping.")
			return nil
		})
	}
	return c
}

// confirm asks a yes-or-no question on the terminal. Without one the command
// itself is the confirmation: a script cannot answer.
func (a *app) confirm(question string) error {
	if !isTerminal(a.stdin) {
		return nil
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil {
		return err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("not confirmed")
	}
	return nil
}
