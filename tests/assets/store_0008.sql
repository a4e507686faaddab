BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0008');
CREATE TABLE attempts (
	id INTEGER NOT NULL, 
	trial_id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	token VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	slot VARCHAR NOT NULL, 
	host VARCHAR NOT NULL, 
	pid INTEGER NOT NULL, 
	boot_id VARCHAR NOT NULL, 
	started_at DATETIME NOT NULL, 
	finished_at DATETIME, 
	failure_kind VARCHAR, 
	failure_message TEXT, 
	failure_traceback TEXT, 
	failure_last_output TEXT, 
	CONSTRAINT pk_attempts PRIMARY KEY (id), 
	CONSTRAINT ck_attempts_number CHECK (number >= 1), 
	CONSTRAINT ck_attempts_state CHECK (state IN ('running', 'complete', 'failed', 'pruned', 'lost', 'stopped')), 
	CONSTRAINT ck_attempts_finished_at CHECK ((state = 'running') = (finished_at IS NULL)), 
	CONSTRAINT ck_attempts_failure_kind CHECK (failure_kind <> ''), 
	CONSTRAINT ck_attempts_failed_says_why CHECK (state <> 'failed' OR failure_kind IS NOT NULL), 
	CONSTRAINT ck_attempts_no_failure CHECK (state NOT IN ('running', 'complete') OR failure_kind IS NULL), 
	CONSTRAINT ck_attempts_failure_whole CHECK ((failure_kind IS NULL) = (failure_message IS NULL) AND (failure_kind IS NULL) = (failure_traceback IS NULL) AND (failure_kind IS NULL) = (failure_last_output IS NULL)), 
	CONSTRAINT fk_attempts_trial_id FOREIGN KEY(trial_id) REFERENCES trials (id), 
	CONSTRAINT uq_attempts_trial_id_number UNIQUE (trial_id, number), 
	CONSTRAINT uq_attempts_token UNIQUE (token)
);
INSERT INTO "attempts" VALUES(1,'400f71bfcea49b3a',1,'lost','lost','gpu0','box',4711,'boot','2026-03-01 12:00:00.123456','2026-03-01 12:01:30.123456',NULL,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES(2,'400f71bfcea49b3a',2,'first','complete','gpu0','box',4711,'boot','2026-03-01 12:00:00.123456','2026-03-01 12:01:30.123456',NULL,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES(3,'e0d55790116e8ff1',1,'second','failed','gpu0','box',4711,'boot','2026-03-01 12:00:00.123456','2026-03-01 12:01:30.123456','bug','it broke — ''quoted''','Traceback ...','last
lines');
CREATE TABLE controls (
	id VARCHAR NOT NULL, 
	sweep VARCHAR NOT NULL, 
	request TEXT NOT NULL, 
	applied_at DATETIME NOT NULL, 
	is_refused BOOLEAN NOT NULL, 
	outcome TEXT NOT NULL, 
	effect TEXT NOT NULL, 
	CONSTRAINT pk_controls PRIMARY KEY (id), 
	CONSTRAINT fk_controls_sweep FOREIGN KEY(sweep) REFERENCES sweeps (name)
);
CREATE TABLE environments (
	digest VARCHAR NOT NULL, 
	environment TEXT NOT NULL, 
	CONSTRAINT pk_environments PRIMARY KEY (digest)
);
INSERT INTO "environments" VALUES('387ad5ba57bbc589','{"commit":"0000000000000000000000000000000000000000","dataset_digest":"d1","device":"cpu","dirty":true,"host":"box","platform":"Linux","python":"3.11","threads":2,"versions":[["numpy","2"],["torch","2.7"]]}');
CREATE TABLE epochs (
	attempt_id INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	train_loss FLOAT NOT NULL, 
	validation_loss FLOAT NOT NULL, 
	validation_accuracy FLOAT NOT NULL, 
	learning_rate FLOAT NOT NULL, 
	train_duration_s FLOAT NOT NULL, 
	evaluate_duration_s FLOAT NOT NULL, 
	health TEXT NOT NULL, metrics TEXT DEFAULT '{}' NOT NULL, 
	CONSTRAINT pk_epochs PRIMARY KEY (attempt_id, epoch), 
	CONSTRAINT ck_epochs_counts CHECK (epoch >= 0 AND step >= 0), 
	CONSTRAINT ck_epochs_validation_accuracy CHECK (validation_accuracy >= 0 AND validation_accuracy <= 1), 
	CONSTRAINT fk_epochs_attempt_id FOREIGN KEY(attempt_id) REFERENCES attempts (id)
);
INSERT INTO "epochs" VALUES(2,1,400,0.5,0.4,0.9,0.01,3.25,0.5,'[{"determinant_mean":0.97,"identity_distance":0.3,"outside_share":0.125,"place":1,"theta_mean":[1.0,0.1,-0.2,0.0,1.0,0.3333333333333333],"theta_std":[0.1,0.0,0.0,0.0,0.1,0.0]}]','{"ece":0.5}');
INSERT INTO "epochs" VALUES(2,2,800,0.5,0.4,0.9,0.01,3.25,0.5,'[{"determinant_mean":0.97,"identity_distance":0.3,"outside_share":0.125,"place":1,"theta_mean":[1.0,0.1,-0.2,0.0,1.0,0.3333333333333333],"theta_std":[0.1,0.0,0.0,0.0,0.1,0.0]}]','{"ece":0.5}');
CREATE TABLE image_sets (
	digest VARCHAR NOT NULL, 
	images INTEGER NOT NULL, 
	dtype VARCHAR NOT NULL, 
	labels BLOB NOT NULL, 
	tracks BLOB NOT NULL, 
	rows BLOB NOT NULL, 
	CONSTRAINT pk_image_sets PRIMARY KEY (digest), 
	CONSTRAINT ck_image_sets_dtype CHECK (dtype IN ('uint8', 'uint16')), 
	CONSTRAINT ck_image_sets_labels CHECK (length(labels) = images * CASE dtype WHEN 'uint8' THEN 1 ELSE 2 END), 
	CONSTRAINT ck_image_sets_places CHECK (length(tracks) IN (0, 4 * images) AND length(rows) IN (0, 4 * images))
);
INSERT INTO "image_sets" VALUES('709a8d40dd2cffaa',4,'uint8',X'002A0709',X'03000000030000000500000008000000',X'00000000010000000400000006000000');
CREATE TABLE mirrored (
	tracker VARCHAR NOT NULL, 
	subject VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	CONSTRAINT pk_mirrored PRIMARY KEY (tracker, subject)
);
INSERT INTO "mirrored" VALUES('mlflow','first','0123456789abcdef');
CREATE TABLE outcomes (
	trial_id VARCHAR NOT NULL, 
	attempt_id INTEGER NOT NULL, 
	parameters BIGINT NOT NULL, 
	flops BIGINT NOT NULL, 
	activation_bytes BIGINT NOT NULL, 
	train_duration_s FLOAT NOT NULL, 
	peak_memory_mib FLOAT NOT NULL, 
	environment VARCHAR NOT NULL, 
	CONSTRAINT pk_outcomes PRIMARY KEY (trial_id), 
	CONSTRAINT ck_outcomes_cost CHECK (parameters >= 0 AND flops >= 0 AND activation_bytes >= 0), 
	CONSTRAINT fk_outcomes_trial_id FOREIGN KEY(trial_id) REFERENCES trials (id), 
	CONSTRAINT fk_outcomes_attempt_id FOREIGN KEY(attempt_id) REFERENCES attempts (id), 
	CONSTRAINT fk_outcomes_environment FOREIGN KEY(environment) REFERENCES environments (digest), 
	CONSTRAINT uq_outcomes_attempt_id UNIQUE (attempt_id)
);
INSERT INTO "outcomes" VALUES('400f71bfcea49b3a',2,12345,5000000000,98304,6.5,123.5,'387ad5ba57bbc589');
CREATE TABLE predictions (
	trial_id VARCHAR NOT NULL, 
	split VARCHAR NOT NULL, 
	dtype VARCHAR NOT NULL, 
	images INTEGER NOT NULL, 
	labels BLOB NOT NULL, 
	CONSTRAINT pk_predictions PRIMARY KEY (trial_id, split), 
	CONSTRAINT ck_predictions_dtype CHECK (dtype IN ('uint8', 'uint16')), 
	CONSTRAINT ck_predictions_labels CHECK (length(labels) = images * CASE dtype WHEN 'uint8' THEN 1 ELSE 2 END), 
	CONSTRAINT fk_predictions_trial_id_split FOREIGN KEY(trial_id, split) REFERENCES scores (trial_id, split)
);
INSERT INTO "predictions" VALUES('400f71bfcea49b3a','validation','uint8',4,X'002A07FF');
INSERT INTO "predictions" VALUES('400f71bfcea49b3a','test','uint16',3,X'01002C01FFFF');
CREATE TABLE scored_images (
	trial_id VARCHAR NOT NULL, 
	split VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	CONSTRAINT pk_scored_images PRIMARY KEY (trial_id, split), 
	CONSTRAINT fk_scored_images_digest FOREIGN KEY(digest) REFERENCES image_sets (digest), 
	CONSTRAINT fk_scored_images_trial_id_split FOREIGN KEY(trial_id, split) REFERENCES scores (trial_id, split)
);
INSERT INTO "scored_images" VALUES('400f71bfcea49b3a','validation','709a8d40dd2cffaa');
CREATE TABLE scores (
	trial_id VARCHAR NOT NULL, 
	split VARCHAR NOT NULL, 
	images INTEGER NOT NULL, 
	correct INTEGER NOT NULL, 
	loss FLOAT NOT NULL, metrics TEXT DEFAULT '{}' NOT NULL, 
	CONSTRAINT pk_scores PRIMARY KEY (trial_id, split), 
	CONSTRAINT ck_scores_split CHECK (split IN ('validation', 'test')), 
	CONSTRAINT ck_scores_correct CHECK (images >= 1 AND correct >= 0 AND correct <= images), 
	CONSTRAINT fk_scores_trial_id FOREIGN KEY(trial_id) REFERENCES outcomes (trial_id)
);
INSERT INTO "scores" VALUES('400f71bfcea49b3a','validation',4,3,0.25,'{"ece":0.25}');
INSERT INTO "scores" VALUES('400f71bfcea49b3a','test',3,1,1.5,'{"brier@0123abcd":1.25,"ece":0.5}');
CREATE TABLE sweep_trials (
	sweep VARCHAR NOT NULL, 
	trial_id VARCHAR NOT NULL, 
	position INTEGER NOT NULL, 
	label VARCHAR NOT NULL, 
	point TEXT NOT NULL, 
	is_twin BOOLEAN NOT NULL, 
	wanted BOOLEAN NOT NULL, pruned BOOLEAN DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_sweep_trials PRIMARY KEY (sweep, trial_id), 
	CONSTRAINT ck_sweep_trials_position CHECK (position >= 0), 
	CONSTRAINT fk_sweep_trials_sweep FOREIGN KEY(sweep) REFERENCES sweeps (name), 
	CONSTRAINT fk_sweep_trials_trial_id FOREIGN KEY(trial_id) REFERENCES trials (id)
);
INSERT INTO "sweep_trials" VALUES('locnet_sizes','400f71bfcea49b3a',0,'size 1','{"labels":[["size","1"]]}',0,1,0);
INSERT INTO "sweep_trials" VALUES('locnet_sizes','e0d55790116e8ff1',1,'size 2','{"labels":[["size","2"]]}',0,1,0);
INSERT INTO "sweep_trials" VALUES('locnet_sizes','68d31d293af103d0',2,'size 3','{"labels":[["size","3"]]}',1,1,0);
CREATE TABLE sweeps (
	name VARCHAR NOT NULL, 
	spec TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_sweeps PRIMARY KEY (name)
);
INSERT INTO "sweeps" VALUES('locnet_sizes','{"axes":[{"choices":[{"label":"20","overrides":[{"key":"locnet.sizes","value":[20,20]}]}],"name":"size"}],"base":[],"exclude":[],"name":"locnet_sizes","planner":{"kind":"grid"},"question":"How large must a localisation network be?","seeds":[1,2],"twins":true}','2026-03-01 12:00:00.123456','2026-03-01 12:00:00.123456');
CREATE TABLE trials (
	id VARCHAR NOT NULL, 
	cell_id VARCHAR NOT NULL, 
	seed BIGINT NOT NULL, 
	spec TEXT NOT NULL, 
	state VARCHAR NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_trials PRIMARY KEY (id), 
	CONSTRAINT ck_trials_state CHECK (state IN ('planned', 'running', 'complete', 'failed', 'pruned')), 
	CONSTRAINT ck_trials_seed CHECK (seed >= 0)
);
INSERT INTO "trials" VALUES('400f71bfcea49b3a','813c43f05b9184b6',1,'{"dataset":{"drawing_seed":1,"image_size":48,"kind":"signs","test_tracks_per_class":2,"tracks_per_class":5},"network":{"contrastive_norm":true,"kind":"lecun","multi_scale":false,"sizes":[1,20,30]},"optimizer":{"kind":"sgd","learning_rate":0.01,"locnet_learning_rate_factor":1.0,"momentum":0.0,"nesterov":false,"weight_decay":0.0},"preprocess":{"contrastive_norm":true,"global_norm":true,"kernel_size":7},"schedule":{"kind":"constant"},"seed":1,"split":{"kind":"tracks","seed":0,"tracks_per_class":3},"training":{"batch_size":50,"epochs":10,"train_images":null},"transformers":[{"locnet":{"kind":"conv","sizes":[200,300,200]},"place":1,"transformer":{"align_corners":true,"family":"affine","padding":"zeros","sampler":"bilinear"}}]}','complete','2026-03-01 12:00:00.123456');
INSERT INTO "trials" VALUES('e0d55790116e8ff1','69dcb81c5ed026f7',1,'{"dataset":{"drawing_seed":1,"image_size":48,"kind":"signs","test_tracks_per_class":2,"tracks_per_class":5},"network":{"contrastive_norm":true,"kind":"lecun","multi_scale":false,"sizes":[2,20,30]},"optimizer":{"kind":"sgd","learning_rate":0.01,"locnet_learning_rate_factor":1.0,"momentum":0.0,"nesterov":false,"weight_decay":0.0},"preprocess":{"contrastive_norm":true,"global_norm":true,"kernel_size":7},"schedule":{"kind":"constant"},"seed":1,"split":{"kind":"tracks","seed":0,"tracks_per_class":3},"training":{"batch_size":50,"epochs":10,"train_images":null},"transformers":[{"locnet":{"kind":"conv","sizes":[200,300,200]},"place":1,"transformer":{"align_corners":true,"family":"affine","padding":"zeros","sampler":"bilinear"}}]}','failed','2026-03-01 12:00:00.123456');
INSERT INTO "trials" VALUES('68d31d293af103d0','c6ec71253957adbd',1,'{"dataset":{"drawing_seed":1,"image_size":48,"kind":"signs","test_tracks_per_class":2,"tracks_per_class":5},"network":{"contrastive_norm":true,"kind":"lecun","multi_scale":false,"sizes":[3,20,30]},"optimizer":{"kind":"sgd","learning_rate":0.01,"locnet_learning_rate_factor":1.0,"momentum":0.0,"nesterov":false,"weight_decay":0.0},"preprocess":{"contrastive_norm":true,"global_norm":true,"kernel_size":7},"schedule":{"kind":"constant"},"seed":1,"split":{"kind":"tracks","seed":0,"tracks_per_class":3},"training":{"batch_size":50,"epochs":10,"train_images":null},"transformers":[]}','planned','2026-03-01 12:00:00.123456');
CREATE UNIQUE INDEX ix_sweep_trials_position ON sweep_trials (sweep, position) WHERE wanted;
CREATE INDEX ix_sweep_trials_trial_id ON sweep_trials (trial_id);
CREATE UNIQUE INDEX ix_attempts_running ON attempts (trial_id) WHERE state = 'running';
CREATE UNIQUE INDEX ix_attempts_complete ON attempts (trial_id) WHERE state = 'complete';
CREATE INDEX ix_controls_sweep ON controls (sweep);
COMMIT;
