// A stand-in for Kaniko's executor, whose image cannot be had everywhere: it takes the documented flags that the service
// uses and no others, looks at the container that it runs in as Kaniko would have to, and has BuildKit do the work.
//
// What it refuses a real Kaniko would refuse too, or would take for something else than what was meant.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"strings"
	"syscall"
)

const (
	home    = "/kaniko"
	daemon  = "tcp://buildkitd.example.com:1234"
	results = home + "/metadata.json"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		var ended *exec.ExitError
		if errors.As(err, &ended) && ended.ExitCode() > 0 {
			os.Exit(ended.ExitCode())
		}
		os.Exit(1)
	}
}

func run(arguments []string) error {
	order, err := parse(arguments)
	if err != nil {
		return err
	}
	if err := errors.Join(checkContainer(), checkMounts(), checkEnvironment()); err != nil {
		return err
	}
	if err := fetchReferences(order.context); err != nil {
		return err
	}
	if err := build(order); err != nil {
		return err
	}
	return writeDigest(order.digestFile)
}

// fetchReferences asks the Git server as Kaniko does, with Go's own TLS and whatever SSL_CERT_DIR trusts.
func fetchReferences(source gitContext) error {
	request, err := http.NewRequest(http.MethodGet, source.url+"/info/refs?service=git-upload-pack", nil)
	if err != nil {
		return err
	}
	if user := os.Getenv("GIT_USERNAME"); user != "" {
		request.SetBasicAuth(user, os.Getenv("GIT_PASSWORD"))
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("error resolving source context: %w", err)
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusUnauthorized:
		return errors.New("error resolving source context: authentication required")
	default:
		return fmt.Errorf("error resolving source context: repository not found (%s)", answer.Status)
	}
}

func build(order order) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	command := exec.CommandContext(ctx, home+"/buildctl", append([]string{"--addr", daemon}, order.words()...)...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.Env = append(os.Environ(), "DOCKER_CONFIG="+home+"/.docker")
	if user := os.Getenv("GIT_USERNAME"); user != "" {
		command.Env = append(command.Env, "GIT_AUTH_HEADER="+basic(user, os.Getenv("GIT_PASSWORD")))
	}
	return command.Run()
}

// words are buildctl's for what the flags ask for.
func (order order) words() []string {
	words := []string{"build", "--progress", "plain", "--frontend", "dockerfile.v0", "--metadata-file", results}
	option := func(name, value string) { words = append(words, "--opt", name+"="+value) }
	option("context", order.context.String())
	if order.subPath != "" {
		option("contextsubdir", order.subPath)
	}
	if path.IsAbs(order.dockerfile) {
		words = append(words, "--local", "dockerfile="+path.Dir(order.dockerfile))
		option("dockerfilekey", "dockerfile")
		option("filename", path.Base(order.dockerfile))
	} else {
		option("filename", path.Join(order.subPath, order.dockerfile))
	}
	for _, argument := range order.buildArguments {
		option("build-arg:"+argument.name, argument.value)
	}
	if os.Getenv("GIT_USERNAME") != "" {
		words = append(words, "--secret", "id=GIT_AUTH_HEADER."+order.context.host()+",env=GIT_AUTH_HEADER")
	}
	if order.cache {
		repository := order.cacheRepository
		if repository == "" {
			repository = order.destination[:strings.LastIndex(order.destination, ":")] + "/cache"
		}
		cache := "type=registry,ref=" + repository + ":stand-in"
		words = append(words, "--import-cache", cache, "--export-cache", cache+",mode=max,ignore-error=true")
	}
	return append(words, "--output", "type=image,push=true,name="+order.destination)
}

// writeDigest leaves the image's digest where the flag says, without a line's end, as Kaniko does.
func writeDigest(file string) error {
	raw, err := os.ReadFile(results)
	if err != nil {
		return err
	}
	var result struct {
		Digest string `json:"containerimage.digest"`
	}
	if err := json.Unmarshal(raw, &result); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(result.Digest), 0o644)
}
