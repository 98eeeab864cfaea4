{{/* The name of every object, at most 30 characters, so that what is put behind it is seen. */}}
{{- define "materializer.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- include "materializer.cut" (list $full 30) -}}
{{- end -}}

{{/* A name and its longest length: what is cut off is told apart by a hash. */}}
{{- define "materializer.cut" -}}
{{- $name := first . -}}
{{- $max := last . -}}
{{- if gt (len $name) $max -}}
{{- printf "%s-%s" ($name | trunc (int (sub $max 7)) | trimSuffix "-") ($name | sha256sum | trunc 6) -}}
{{- else -}}
{{- $name | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The StatefulSet of a pool: at most 46 characters, since its pods bear a label of its name and a hash. */}}
{{- define "materializer.pool" -}}
{{- include "materializer.cut" (list (printf "%s-%s" (include "materializer.fullname" .root) .pool) 46) -}}
{{- end -}}

{{- define "materializer.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "materializer.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "materializer.image" -}}
{{- $image := .Values.image -}}
{{- $path := printf "%s/%s" $image.registry $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $path $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $path ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change: no version is among them. */}}
{{- define "materializer.selector" -}}
app.kubernetes.io/name: {{ .root.Values.nameOverride | default .root.Chart.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name | trunc 63 | trimSuffix "-" }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .pool }}
materializer/pool: {{ . }}
{{- end }}
{{- end -}}

{{- define "materializer.labels" -}}
{{ include "materializer.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "materializer.secrets" -}}/run/secrets/materializer{{- end -}}

{{- define "materializer.scheme" -}}{{ ternary "HTTPS" "HTTP" (ne .Values.access.tlsSecret "") }}{{- end -}}

{{/* `materializer.yaml`. What differs from pod to pod comes by variables. */}}
{{- define "materializer.settings" -}}
{{- $secrets := include "materializer.secrets" . -}}
{{- $properties := deepCopy .Values.kafka.properties -}}
{{- range $property, $key := .Values.kafka.secretProperties -}}
{{- $_ := set $properties (printf "%s_file" $property) (printf "%s/kafka/%s" $secrets $key) -}}
{{- end -}}
{{- range $property, $key := .Values.kafka.secretFiles -}}
{{- $_ := set $properties $property (printf "%s/kafka/%s" $secrets $key) -}}
{{- end -}}
{{- $kafka := dict "brokers" (required "kafka.brokers: say where Kafka is, as `kafka:9092`" .Values.kafka.brokers) -}}
{{- if $properties }}{{- $_ := set $kafka "properties" $properties -}}{{- end -}}
{{- $connections := dict -}}
{{- range $name, $from := .Values.connections -}}
{{- $connection := pick $from "url" "username" -}}
{{- if $from.passwordKey -}}
{{- $_ := set $connection "password_file" (printf "%s/%s/%s" $secrets $name $from.passwordKey) -}}
{{- end -}}
{{- if $from.tlsCaKey -}}
{{- $_ := set $connection "tls_ca" (printf "%s/%s/%s" $secrets $name $from.tlsCaKey) -}}
{{- end -}}
{{- $_ := set $connections $name $connection -}}
{{- end -}}
{{- $access := dict -}}
{{- with .Values.access -}}
{{- if not (or .open .existingSecret) -}}
{{- fail "access: name a secret with a token (`access.existingSecret`), or say `access.open: true`: the ports are reached by every pod" -}}
{{- end -}}
{{- if .open }}{{- $_ := set $access "open" true -}}{{- end -}}
{{- if .existingSecret }}{{- $_ := set $access "token_file" (printf "%s/access/%s" $secrets .tokenKey) -}}{{- end -}}
{{- if .tlsSecret -}}
{{- range $key, $file := dict "tls_cert" "tls.crt" "tls_key" "tls.key" "tls_ca" "ca.crt" -}}
{{- $_ := set $access $key (printf "%s/tls/%s" $secrets $file) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $own := dict "installation" .Values.installation "kafka" $kafka "access" $access "data_dir" "/data" "http" "0.0.0.0:8080" "redis" "0.0.0.0:6380" -}}
{{- if $connections }}{{- $_ := set $own "connections" $connections -}}{{- end -}}
{{- range $key, $_ := .Values.settings -}}
{{- if hasKey $own $key -}}
{{- fail (printf "settings.%s: the chart writes it; use `%s` of the values" $key $key) -}}
{{- end -}}
{{- end -}}
{{- toYaml (merge $own .Values.settings) -}}
{{- end -}}

{{/* Secrets, each in a folder of its own. */}}
{{- define "materializer.secretVolumes" -}}
{{- with .Values.kafka.existingSecret }}
- name: secret-kafka
  secret: {secretName: {{ . | quote }}}
{{- end }}
{{- range $name, $from := .Values.connections }}
{{- with $from.existingSecret }}
- name: secret-{{ $name }}
  secret: {secretName: {{ . | quote }}}
{{- end }}
{{- end }}
{{- with .Values.access.existingSecret }}
- name: secret-access
  secret: {secretName: {{ . | quote }}}
{{- end }}
{{- with .Values.access.tlsSecret }}
- name: secret-tls
  secret: {secretName: {{ . | quote }}}
{{- end }}
{{- end -}}

{{- define "materializer.secretMounts" -}}
{{- $secrets := include "materializer.secrets" . -}}
{{- if .Values.kafka.existingSecret }}
- {name: secret-kafka, mountPath: {{ $secrets }}/kafka, readOnly: true}
{{- end }}
{{- range $name, $from := .Values.connections }}
{{- if $from.existingSecret }}
- {name: secret-{{ $name }}, mountPath: {{ $secrets }}/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}
{{- if .Values.access.existingSecret }}
- {name: secret-access, mountPath: {{ $secrets }}/access, readOnly: true}
{{- end }}
{{- if .Values.access.tlsSecret }}
- {name: secret-tls, mountPath: {{ $secrets }}/tls, readOnly: true}
{{- end }}
{{- end -}}
