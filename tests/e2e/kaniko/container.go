package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// What unpacking base images and running steps as other users needs, and no more: CHOWN, DAC_OVERRIDE, FOWNER, FSETID,
// KILL, SETGID, SETUID, SETFCAP.
const capabilities = "00000000800000fb"

// checkContainer looks at what the kernel says of this process.
func checkContainer() error {
	if os.Getuid() != 0 {
		return errors.New("kaniko must be root in its container")
	}
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	status := map[string]string{}
	for _, line := range strings.Split(string(raw), "\n") {
		name, value, _ := strings.Cut(line, ":")
		status[name] = strings.TrimSpace(value)
	}
	var problems []error
	for name, wanted := range map[string]string{"CapEff": capabilities, "CapBnd": capabilities, "NoNewPrivs": "1", "Seccomp": "2"} {
		if status[name] != wanted {
			problems = append(problems, fmt.Errorf("%s is %s and must be %s", name, status[name], wanted))
		}
	}
	if err := os.WriteFile("/unpacked", nil, 0o644); err != nil {
		problems = append(problems, fmt.Errorf("the root file system is where the image is unpacked: %w", err))
	}
	return errors.Join(problems...)
}

// What the kubelet and the runtime mount in every container.
var usual = []string{"/", "/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}

// checkMounts refuses a mount at any place that a build may use for itself.
func checkMounts() error {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		place := strings.Fields(line)[4]
		if !expected(place) {
			return fmt.Errorf("a build may want to write to what is mounted at %s", place)
		}
	}
	return checkDockerConfig()
}

func expected(place string) bool {
	for _, one := range usual {
		if place == one || one != "/" && strings.HasPrefix(place, one+"/") {
			return true
		}
	}
	return strings.HasPrefix(place, home+"/")
}

func checkDockerConfig() error {
	raw, err := os.ReadFile(home + "/.docker/config.json")
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var config struct {
		Auths map[string]any `json:"auths"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return fmt.Errorf("config.json: %w", err)
	}
	if len(config.Auths) == 0 {
		return errors.New("config.json has no auths")
	}
	return nil
}

// checkEnvironment knows the variables that mean something to Kaniko.
func checkEnvironment() error {
	known := map[string]bool{"GIT_USERNAME": true, "GIT_PASSWORD": true}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		if (strings.HasPrefix(name, "GIT_") || strings.HasPrefix(name, "KANIKO_")) && (!known[name] || value == "") {
			return fmt.Errorf("the variable %s is not one that is used here, or it is empty", name)
		}
	}
	for _, folder := range strings.Split(os.Getenv("SSL_CERT_DIR"), ":") {
		if info, err := os.Stat(folder); err != nil || !info.IsDir() {
			return fmt.Errorf("SSL_CERT_DIR: %s is no folder", folder)
		}
	}
	return nil
}
