package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

// reloadJSON is what gotong config reload answers.
type reloadJSON struct {
	Applied []string `json:"applied"` // keys that hold now
	Restart []string `json:"restart"` // keys that changed and hold after a restart
}

func (a *app) configReloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Let the running peer read its configuration again",
		Long: `Reload has the running peer read config.yaml again, with the environment and the
flags that it was started with, and says which changed settings hold now and which
need a restart. When anything is not valid nothing changes, and the peer goes on.
What SIGHUP does, with an answer.`,
		Example: "  gotong config reload\n  gotong config reload --json",
		Args:    exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
				r, err := peer.ConfigReload(ctx, &controlv1.ConfigReloadRequest{})
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(reloadJSON{append([]string{}, r.Applied...), append([]string{}, r.Restart...)})
				}
				if len(r.Applied)+len(r.Restart) == 0 {
					fmt.Fprintln(a.stdout, "No setting changed.")
				}
				if len(r.Applied) > 0 {
					fmt.Fprintf(a.stdout, "In force now: %s\n", strings.Join(r.Applied, ", "))
				}
				if len(r.Restart) > 0 {
					fmt.Fprintf(a.stdout, "After a restart of gotong up: %s\n", strings.Join(r.Restart, ", "))
				}
				return nil
			})
		},
	}
}
